//! The scheduler's promises: single rules by hand, and random histories that check every promise at every step.

use super::*;
use crate::testing::Noise;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits {
    max_sequences: 2,
    least_prompt_tokens: 2,
    context_length: 64,
    blocks: 8,
    kept_blocks: 8,
    speculative_rows: 16,
};

const STEP: usize = 8;

fn submission(id: SeqId, prompt: usize, max_tokens: u32) -> Submission {
    // Prompts of their own: nothing is found of another's.
    let prompt = (0..prompt).map(|at| id as u32 * 1000 + at as u32).collect();
    Submission { max_tokens: Some(max_tokens), window: 4, ..Submission::new(id, prompt) }
}

fn scheduler(limits: Limits, requests: &[(SeqId, usize, u32)]) -> Scheduler {
    let mut scheduler = Scheduler::new(limits);
    for (id, prompt, max_tokens) in requests {
        scheduler.submit(submission(*id, *prompt, *max_tokens)).unwrap();
    }
    scheduler
}

/// All that a step needs.
fn planned(scheduler: &mut Scheduler) -> (Vec<SeqId>, Plan) {
    let admission = scheduler.admit(Duration::ZERO);
    let plan = scheduler.plan(STEP);
    (admission.admitted.iter().map(|(id, _)| *id).collect(), plan)
}

/// Does what the plan says; every sampled token is `9`. Returns who was admitted and the rows.
fn step(scheduler: &mut Scheduler) -> (Vec<SeqId>, Vec<Row>) {
    let (admitted, plan) = planned(scheduler);
    for row in &plan.rows {
        if row.samples {
            scheduler.push(row.id, 9);
            let generated = scheduler.sequence(row.id).unwrap().generated() as u32;
            scheduler.announce(row.id, generated);
        }
        scheduler.computed(row, 0);
    }
    (admitted, plan.rows)
}

fn ids(rows: &[Row]) -> Vec<SeqId> {
    rows.iter().map(|row| row.id).collect()
}

#[test]
fn limits_are_refused_with_numbers() {
    let small = Limits { context_length: 640, ..LIMITS };
    type Row = (Limits, usize, Option<u32>, &'static str);
    let table: &[Row] = &[
        (LIMITS, 63, None, ""),
        (LIMITS, 60, Some(4), ""),
        (LIMITS, 60, Some(5), "60 prompt tokens and 5 to generate exceed the context of 64 tokens"),
        (LIMITS, 64, None, "64 prompt tokens and 1 to generate exceed the context of 64 tokens"),
        (LIMITS, 1, Some(u32::MAX), "1 prompt tokens and 4294967295 to generate exceed the context of 64 tokens"),
        (small, 256, Some(1), ""),
        (small, 257, Some(1), "257 positions of the key-value cache needed, it has room for 256"),
        (small, 250, Some(100), "349 positions of the key-value cache needed, it has room for 256"),
        (small, 250, None, ""),
        (LIMITS, 0, None, "`prompt`: it has no tokens"),
    ];
    for (limits, tokens, max_tokens, expected) in table {
        let submission = Submission { max_tokens: *max_tokens, ..submission(1, *tokens, 0) };
        let error = Scheduler::new(*limits).submit(submission).err().map(|error| error.to_string());
        assert_eq!(error.unwrap_or_default(), *expected, "{tokens} + {max_tokens:?}");
    }
}

#[test]
fn no_limit_ends_with_the_context_or_the_cache() {
    for (limits, prompt) in [(LIMITS, 61), (Limits { context_length: 640, blocks: 2, ..LIMITS }, 62)] {
        let mut scheduler = Scheduler::new(limits);
        scheduler.submit(Submission { max_tokens: None, ..submission(1, prompt, 0) }).unwrap();
        assert_eq!([scheduler.push(1, 9), scheduler.push(1, 9), scheduler.push(1, 9)], [false, false, true]);
    }
}

#[test]
fn arrival_order_is_kept() {
    let mut scheduler = scheduler(LIMITS, &[(5, 3, 1), (4, 3, 1), (3, 3, 1)]);
    assert_eq!(step(&mut scheduler).0, [5, 4]);
    scheduler.remove(4);
    assert_eq!(step(&mut scheduler).0, [3]);
}

#[test]
fn the_urgent_go_first_but_not_for_ever() {
    let mut scheduler = Scheduler::new(Limits { max_sequences: 6, ..LIMITS });
    let seconds = Duration::from_secs;
    for (id, priority, arrived) in [(1, 0, 0), (2, 1, 5), (3, 1, 15), (4, -1, 0), (5, 2, 1), (6, 0, 0)] {
        scheduler.submit(Submission { priority, arrived: seconds(arrived), ..submission(id, 3, 1) }).unwrap();
    }
    assert_eq!(step(&mut scheduler).0, [5, 2, 1, 6, 3, 4]);
}

#[test]
fn deadlines_end_what_has_not_begun() {
    let mut scheduler = Scheduler::new(Limits { max_sequences: 1, ..LIMITS });
    let ms = Duration::from_millis;
    for (id, deadline) in [(1, Some(ms(50))), (2, Some(ms(50))), (3, None)] {
        scheduler.submit(Submission { deadline, arrived: ms(10), ..submission(id, 3, 9) }).unwrap();
    }
    assert_eq!(scheduler.admit(ms(49)).admitted, [(1, 0)]);
    let failed = scheduler.admit(ms(50)).failed;
    let [(2, error)] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(error.to_string(), "the deadline passed before generation began: 40 ms in the queue");
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (1, 1));
}

#[test]
fn decoding_goes_on_beside_a_long_prompt() {
    let mut scheduler = scheduler(LIMITS, &[(1, 2, 20), (2, 40, 4)]);
    step(&mut scheduler);
    for _ in 0..3 {
        let (_, rows) = step(&mut scheduler);
        assert_eq!((ids(&rows), rows[1].len), (vec![1, 2], 7));
    }
}

#[test]
fn unacknowledged_tokens_pause() {
    let mut scheduler = scheduler(LIMITS, &[(1, 1, 20), (2, 1, 20)]);
    for generated in 1..=4 {
        step(&mut scheduler);
        scheduler.acknowledge(2, generated);
    }
    assert_eq!(ids(&planned(&mut scheduler).1.rows), [2]);
    assert_eq!((scheduler.counts().running, scheduler.counts().paused), (2, 1));
    scheduler.acknowledge(1, 1);
    assert_eq!(ids(&planned(&mut scheduler).1.rows), [1, 2]);
}

#[test]
fn paused_gives_its_place_to_waiting() {
    let mut scheduler = scheduler(LIMITS, &[(1, 1, 20), (2, 1, 20)]);
    (0..4).for_each(|_| drop(step(&mut scheduler)));
    assert!(planned(&mut scheduler).1.rows.is_empty());
    scheduler.submit(submission(3, 3, 1)).unwrap();
    assert_eq!(step(&mut scheduler).0, [3]);
    scheduler.remove(3);
    let counts = scheduler.counts();
    assert_eq!((counts.running, counts.paused, counts.waiting, counts.parked), (1, 1, 0, 1));
    scheduler.acknowledge(2, 4);
    // Most of what it had computed is still there.
    assert_eq!(scheduler.admit(Duration::ZERO).admitted, [(2, 4)]);
    assert_eq!(scheduler.plan(STEP).rows, [Row { id: 2, start: 4, len: 1, samples: true, guess: vec![] }]);
}

#[test]
fn acknowledging_too_much_is_capped() {
    let mut scheduler = scheduler(LIMITS, &[(1, 1, 20)]);
    scheduler.acknowledge(1, 1000);
    scheduler.acknowledge(99, 1);
    (0..4).for_each(|_| drop(step(&mut scheduler)));
    assert!(planned(&mut scheduler).1.rows.is_empty());
}

#[test]
fn the_last_in_rank_gives_its_blocks() {
    let limits = Limits { max_sequences: 3, blocks: 3, ..LIMITS };
    let mut scheduler = scheduler(limits, &[(1, 20, 40), (2, 20, 40)]);
    let mut admitted = Vec::new();
    for _ in 0..26 {
        let (came, _) = step(&mut scheduler);
        admitted.extend(came);
        [1, 2].iter().for_each(|id| scheduler.acknowledge(*id, 99));
    }
    // Both need a second block at about the same time, and there is one.
    assert_eq!(admitted, [1, 2]);
    assert_eq!((scheduler.counts().running, scheduler.counts().waiting), (1, 1));
    assert_eq!(scheduler.running, [1]);
    scheduler.remove(1);
    let (admitted, rows) = step(&mut scheduler);
    assert_eq!(admitted, [2]);
    // Its first block was kept.
    assert!(rows[0].start >= 32, "{rows:?}");
}

#[test]
fn equal_prompts_are_computed_once() {
    let limits = Limits { max_sequences: 4, blocks: 40, context_length: 640, ..LIMITS };
    let mut scheduler = Scheduler::new(limits);
    for id in 1..=4 {
        let scope = if id == 4 { "another" } else { "" }.to_owned();
        let prompt = (0..100).chain([id as u32]).collect();
        scheduler.submit(Submission { scope, max_tokens: Some(9), ..Submission::new(id, prompt) }).unwrap();
    }
    let mut computed = BTreeMap::new();
    while scheduler.running.iter().any(|id| scheduler.sequences[id].generated() == 0) || computed.is_empty() {
        let (_, rows) = step(&mut scheduler);
        rows.iter()
            .filter(|row| row.start + row.len <= 101)
            .for_each(|row| *computed.entry(row.id).or_default() += row.len);
    }
    assert_eq!(computed, BTreeMap::from([(1, 101), (2, 5), (3, 5), (4, 101)]));
    // Three blocks of 96 tokens in common, in one scope.
    assert_eq!(scheduler.counts().blocks_used, 3 + 3 + 4);
}

#[test]
fn guesses_fill_a_step_of_few_rows() {
    let mut scheduler = Scheduler::new(Limits { max_sequences: 4, blocks: 40, ..LIMITS });
    let prompt: Vec<u32> = (0..5).cycle().take(20).collect();
    for (id, speculate, max_tokens) in [(1, true, 40), (2, false, 40), (3, true, 3)] {
        let submission = Submission { speculate, max_tokens: Some(max_tokens), ..Submission::new(id, prompt.clone()) };
        scheduler.submit(submission).unwrap();
    }
    while scheduler.sequences[&1].computed < 20 || scheduler.sequences[&3].generated() < 1 {
        scheduler.admit(Duration::ZERO);
        for row in scheduler.plan(100).rows {
            if row.samples {
                scheduler.push(row.id, 0);
            }
            scheduler.computed(&row, 0);
        }
    }
    let guesses: Vec<_> = scheduler.plan(100).rows.into_iter().map(|row| (row.id, row.guess)).collect();
    // The third may only grow by two, and one of them is due.
    assert_eq!(guesses, [(1, vec![1, 2, 3]), (2, vec![]), (3, vec![1])]);
}

#[test]
fn lost_memory_moves_sequences_down() {
    let mut scheduler = scheduler(Limits { max_sequences: 3, ..LIMITS }, &[(1, 6, 50), (2, 6, 50)]);
    step(&mut scheduler);
    let (_, plan) = planned(&mut scheduler);
    assert!(!scheduler.shrink(&plan.rows), "these blocks are good");
    scheduler.submit(submission(3, 6, 50)).unwrap();
    let (_, plan) = planned(&mut scheduler);
    assert!(scheduler.shrink(&plan.rows));
    assert_eq!((scheduler.counts().blocks, scheduler.counts().running, scheduler.counts().waiting), (2, 2, 1));
    assert_eq!(scheduler.admit(Duration::ZERO).admitted, []);
    [1, 2, 3].iter().for_each(|id| drop(scheduler.remove(*id)));
    assert_eq!((scheduler.counts().blocks, scheduler.counts().blocks_used), (8, 0));
}

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
