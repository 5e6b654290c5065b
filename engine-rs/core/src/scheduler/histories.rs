//! Random histories of the scheduler: every promise is checked at every step, and what the blocks hold with it.

use super::*;
use crate::testing::Noise;
use std::collections::{BTreeMap, BTreeSet};

/// A random history. The world beside the scheduler holds what an executor and the clients would hold.
struct World {
    noise: Noise,
    step_tokens: usize,
    scheduler: Scheduler,
    /// What each place of the cache holds: a digest of the scope and of all tokens up to it.
    cache: BTreeMap<BlockId, [u64; BLOCK]>,
    scopes: BTreeMap<SeqId, u64>,
    /// Generated tokens of each open sequence that its client has not acknowledged.
    behind: BTreeMap<SeqId, u32>,
    next: SeqId,
    now: Duration,
    ended: u32,
    steps: u32,
}

fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed);
        let blocks = 7 + noise.below(20) as usize;
        let limits = Limits {
            max_sequences: 1 + noise.below(5) as usize,
            least_prompt_tokens: 1 + noise.below(4) as usize,
            context_length: 200,
            blocks,
            kept_blocks: noise.below(blocks as u32) as usize,
            speculative_rows: noise.below(20) as usize,
        };
        Self {
            step_tokens: 1 + noise.below(60) as usize,
            noise,
            scheduler: Scheduler::new(limits),
            cache: BTreeMap::new(),
            scopes: BTreeMap::new(),
            behind: BTreeMap::new(),
            next: 1,
            now: Duration::ZERO,
            ended: 0,
            steps: 0,
        }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.noise.below(bound)
    }

    /// Prompts of two beginnings and few tokens, so that much is in common.
    fn submit(&mut self) {
        let (id, beginning, length) = (self.next, self.below(2), 1 + self.below(140));
        let prompt = (0..length).map(|at| if at < 100 { beginning + at % 7 } else { self.below(3) }).collect();
        let scope = self.below(2);
        let submission = Submission {
            max_tokens: Some(1 + self.below(40)),
            window: 1 + self.below(6),
            scope: scope.to_string(),
            priority: self.below(3) as i32,
            arrived: self.now,
            deadline: (self.below(8) == 0).then(|| self.now + Duration::from_millis(20)),
            speculate: self.below(2) == 0,
            ..Submission::new(id, prompt)
        };
        self.scheduler.submit(submission).unwrap();
        self.scopes.insert(id, u64::from(scope));
        self.behind.insert(id, 0);
        self.next += 1;
    }

    fn any(&mut self) -> Option<SeqId> {
        let count = self.behind.len() as u32;
        let index = if count == 0 { 0 } else { self.below(count) };
        self.behind.keys().nth(index as usize).copied()
    }

    fn remove(&mut self, id: SeqId) {
        let spoiled = self.below(4) == 0;
        assert!(if spoiled { self.scheduler.discard(id) } else { self.scheduler.remove(id) }.is_some());
        self.gone(id);
    }

    fn gone(&mut self, id: SeqId) {
        assert!(self.behind.remove(&id).is_some());
        self.ended += 1;
    }

    fn acknowledge(&mut self, id: SeqId) {
        let generated = self.scheduler.sequence(id).map_or(0, Sequence::generated) as u32;
        self.scheduler.acknowledge(id, generated);
        self.behind.insert(id, 0);
    }

    fn step(&mut self) -> Vec<Row> {
        self.now += Duration::from_millis(1);
        self.steps += 1;
        let admission = self.scheduler.admit(self.now);
        let plan = self.scheduler.plan(self.step_tokens);
        admission.failed.iter().chain(&plan.failed).for_each(|(id, _)| self.gone(*id));
        self.check(&plan.rows);
        let waiting = self.scheduler.counts().waiting;
        assert!(!plan.rows.is_empty() || waiting == 0 || plan.preempted + admission.preempted > 0, "{waiting} wait");
        plan.rows.iter().for_each(|row| self.compute(row));
        plan.rows
    }

    fn check(&self, rows: &[Row]) {
        let limits = self.scheduler.limits;
        let running = &self.scheduler.running;
        assert!(running.len() <= limits.max_sequences);
        let tokens: usize = rows.iter().map(|row| row.len).sum();
        assert!(tokens <= self.step_tokens.max(running.len() + limits.least_prompt_tokens));
        assert!(rows.iter().all(|row| row.guess.is_empty()) || rows.len() + 7 <= limits.speculative_rows + 7);
        let served: BTreeSet<SeqId> = rows.iter().map(|row| row.id).collect();
        assert_eq!(served.len(), rows.len(), "one row each");
        for id in running {
            let sequence = &self.scheduler.sequences[id];
            assert!(!(sequence.paused() && served.contains(id)), "{id} is paused");
            let decoding = sequence.remaining() == 1 && !sequence.paused();
            assert!(!decoding || served.contains(id), "{id} decodes, so every step serves it");
        }
        self.check_blocks(rows);
    }

    /// A block that is written has one user, and the book-keeping counts as many users as there are.
    fn check_blocks(&self, rows: &[Row]) {
        let mut users: BTreeMap<BlockId, u32> = BTreeMap::new();
        for sequence in self.scheduler.sequences.values() {
            sequence.blocks.iter().for_each(|block| *users.entry(*block).or_default() += 1);
        }
        assert_eq!(users.len(), self.scheduler.counts().blocks_used);
        assert!(users.keys().all(|id| (*id as usize) < self.scheduler.limits.blocks));
        for row in rows {
            let written = &self.scheduler.blocks(row)[row.start / BLOCK..];
            assert!(written.iter().all(|block| users[block] == 1), "a shared block is written");
        }
    }

    /// What an executor does: reads what is there before the row, writes the row, samples.
    fn compute(&mut self, row: &Row) {
        let tokens = [self.scheduler.tokens(row), &row.guess].concat();
        let blocks = self.scheduler.blocks(row).to_vec();
        let mut last = self.scopes[&row.id];
        let held = &self.scheduler.sequences[&row.id].tokens;
        for (position, token) in held[..row.start].iter().enumerate() {
            last = mix(mix(last, u64::from(*token)), position as u64);
            assert_eq!(self.cache[&blocks[position / BLOCK]][position % BLOCK], last, "{} at {position}", row.id);
        }
        let mut right = 0;
        for (at, token) in tokens.iter().enumerate() {
            let position = row.start + at;
            last = mix(mix(last, u64::from(*token)), position as u64);
            self.cache.entry(blocks[position / BLOCK]).or_default()[position % BLOCK] = last;
            let sampled = at + 1 - row.len.min(at + 1);
            if row.samples && at + 1 >= row.len && sampled == right {
                let full = self.sample(row.id, position as u32 % 7);
                if full || row.guess.get(right) != Some(&(position as u32 % 7)) {
                    break;
                }
                right += 1;
            }
        }
        self.scheduler.computed(row, right);
        if self.scheduler.sequence(row.id).is_some_and(Sequence::full) {
            self.scheduler.remove(row.id);
            self.gone(row.id);
        }
    }

    fn sample(&mut self, id: SeqId, token: u32) -> bool {
        let full = self.scheduler.push(id, token);
        let generated = self.scheduler.sequence(id).unwrap().generated() as u32;
        self.scheduler.announce(id, generated);
        let behind = self.behind.entry(id).or_default();
        *behind += 1;
        assert!(*behind <= self.scheduler.sequences[&id].window);
        full
    }
}

#[test]
fn random_histories_keep_every_promise() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            match (world.below(10), world.any()) {
                (0..=1, _) => world.submit(),
                (2, Some(id)) if world.below(3) == 0 => world.remove(id),
                (3..=5, Some(id)) => world.acknowledge(id),
                _ => drop(world.step()),
            }
        }
        // From here on every client keeps up: all that is left must finish within the work there is.
        let left = world.behind.len() as u32;
        let (ended, bound) = (world.ended, left * 240 + 10);
        for _ in 0..bound {
            if world.behind.is_empty() {
                break;
            }
            world.behind.clone().keys().for_each(|id| world.acknowledge(*id));
            world.step();
        }
        assert_eq!(world.ended - ended, left, "seed {seed}: {:?}", world.scheduler.counts());
        let counts = world.scheduler.counts();
        assert_eq!((counts.running, counts.waiting, counts.parked, counts.blocks_used), (0, 0, 0, 0));
        assert!(counts.blocks_kept <= world.scheduler.limits.kept_blocks);
        assert!(world.scheduler.sequences.is_empty());
    }
}

#[test]
fn equal_histories_give_equal_plans() {
    let run = || {
        let mut world = World::new(5);
        (0..12).for_each(|_| world.submit());
        (0..40).map(|_| world.step()).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
