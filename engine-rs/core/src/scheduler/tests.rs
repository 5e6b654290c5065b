//! The scheduler's promises: single rules by hand, and random histories that check every promise at every step.

use super::*;
use crate::sampler::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// All that a step needs.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    release: Vec<SeqId>,
    admitted: Vec<SeqId>,
    rows: Vec<Row>,
}

fn planned(scheduler: &mut Scheduler, step_tokens: usize) -> Plan {
    let Admission { release, admitted } = scheduler.admit();
    let rows = scheduler.plan(step_tokens);
    Plan { release, admitted, rows }
}

const LIMITS: Limits = Limits { max_sequences: 2, least_prompt_tokens: 2, context_length: 64 };

const STEP: usize = 8;

fn scheduler(requests: &[(SeqId, usize, u32)]) -> Scheduler {
    let mut scheduler = Scheduler::new(LIMITS);
    for (id, prompt, max_tokens) in requests {
        scheduler.submit(*id, vec![7; *prompt], Some(*max_tokens), 4).unwrap();
    }
    scheduler
}

/// Does what the plan says; every sampled token is `9`. Returns the plan and the sequences that became full.
fn step(scheduler: &mut Scheduler) -> (Plan, Vec<SeqId>) {
    let plan = planned(scheduler, STEP);
    let mut full = Vec::new();
    for row in &plan.rows {
        scheduler.computed(row);
        if row.samples {
            if scheduler.push(row.id, 9) {
                full.push(row.id);
            }
            let generated = scheduler.sequence(row.id).unwrap().generated() as u32;
            scheduler.announce(row.id, generated);
        }
    }
    (plan, full)
}

fn ids(plan: &Plan) -> Vec<SeqId> {
    plan.rows.iter().map(|row| row.id).collect()
}

#[test]
fn context_limits_are_refused_with_numbers() {
    type Row = (usize, Option<u32>, Option<(usize, usize)>);
    let table: &[Row] = &[
        (63, None, None),
        (60, Some(4), None),
        (60, Some(5), Some((60, 5))),
        (64, None, Some((64, 1))),
        (100, Some(1), Some((100, 1))),
        (1, Some(u32::MAX), Some((1, u32::MAX as usize))),
    ];
    for (tokens, max_tokens, expected) in table {
        let got = match Scheduler::new(LIMITS).submit(1, vec![0; *tokens], *max_tokens, 4) {
            Ok(()) => None,
            Err(Error::ContextOverflow { prompt, requested, limit: 64 }) => Some((prompt, requested)),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(got, *expected, "{tokens} + {max_tokens:?}");
    }
}

#[test]
fn no_limit_ends_with_the_context() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.submit(1, vec![0; 61], None, 99).unwrap();
    assert_eq!([scheduler.push(1, 9), scheduler.push(1, 9), scheduler.push(1, 9)], [false, false, true]);
}

#[test]
fn arrival_order_is_kept() {
    let mut scheduler = scheduler(&[(5, 3, 1), (4, 3, 1), (3, 3, 1)]);
    let (plan, _) = step(&mut scheduler);
    assert_eq!(plan.admitted, [5, 4]);
    scheduler.remove(4);
    assert_eq!(planned(&mut scheduler, STEP).admitted, [3]);
}

#[test]
fn decoding_goes_on_beside_a_long_prompt() {
    let mut scheduler = scheduler(&[(1, 2, 20), (2, 40, 4)]);
    step(&mut scheduler);
    for _ in 0..3 {
        let (plan, _) = step(&mut scheduler);
        assert_eq!(ids(&plan), [1, 2]);
        assert_eq!(plan.rows[1].len, 7);
    }
}

#[test]
fn unacknowledged_tokens_pause() {
    let mut scheduler = scheduler(&[(1, 1, 20), (2, 1, 20)]);
    for generated in 1..=4 {
        step(&mut scheduler);
        scheduler.acknowledge(2, generated);
    }
    assert_eq!(ids(&planned(&mut scheduler, STEP)), [2]);
    assert_eq!(scheduler.counts(), Counts { running: 2, paused: 1, waiting: 0, parked: 0 });
    scheduler.acknowledge(1, 1);
    assert_eq!(ids(&planned(&mut scheduler, STEP)), [1, 2]);
}

#[test]
fn paused_gives_its_place_to_waiting() {
    let mut scheduler = scheduler(&[(1, 1, 20), (2, 1, 20)]);
    (0..4).for_each(|_| drop(step(&mut scheduler)));
    assert_eq!(planned(&mut scheduler, STEP), Plan::default());
    scheduler.submit(3, vec![7; 3], Some(1), 4).unwrap();
    let (plan, full) = step(&mut scheduler);
    assert_eq!((plan.release, plan.admitted, full), (vec![2], vec![3], vec![3]));
    scheduler.remove(3);
    assert_eq!(scheduler.counts(), Counts { running: 1, paused: 1, waiting: 0, parked: 1 });
    scheduler.acknowledge(2, 4);
    let plan = planned(&mut scheduler, STEP);
    assert_eq!(plan.admitted, [2]);
    assert_eq!(plan.rows, [Row { id: 2, start: 0, len: 5, samples: true }]);
}

#[test]
fn acknowledging_too_much_is_capped() {
    let mut scheduler = scheduler(&[(1, 1, 20)]);
    scheduler.acknowledge(1, 1000);
    scheduler.acknowledge(99, 1);
    (0..4).for_each(|_| drop(step(&mut scheduler)));
    assert!(planned(&mut scheduler, STEP).rows.is_empty());
}

#[test]
fn full_memory_takes_the_youngest_and_waits() {
    let mut scheduler = scheduler(&[(1, 4, 9), (2, 4, 9), (3, 4, 9)]);
    step(&mut scheduler);
    assert_eq!(scheduler.preempt(), Some(2));
    assert_eq!(scheduler.preempt(), None);
    let (plan, _) = step(&mut scheduler);
    assert_eq!((plan.admitted, plan.rows.len()), (vec![], 1));
    scheduler.remove(1);
    assert_eq!(planned(&mut scheduler, STEP).admitted, [2, 3]);
    // The generated token is part of what is computed again.
    assert_eq!(scheduler.sequence(2).unwrap().remaining(), 5);
}

#[test]
fn resuming_leaves_a_token_to_compute() {
    let mut scheduler = scheduler(&[(1, 5, 9), (2, 5, 9)]);
    scheduler.admit();
    scheduler.resume(1, 3);
    scheduler.resume(2, 99);
    let rows: Vec<_> = scheduler.plan(STEP).iter().map(|row| (row.id, row.start, row.len)).collect();
    assert_eq!(rows, [(2, 4, 1), (1, 3, 2)]);
}

/// A random history. The world beside the scheduler holds what an executor and the clients would hold.
struct World {
    random: Random,
    step_tokens: usize,
    scheduler: Scheduler,
    held: BTreeMap<SeqId, usize>,
    /// Generated tokens of each open sequence that its client has not acknowledged.
    behind: BTreeMap<SeqId, u32>,
    /// Steps since each running, unpaused sequence was last served.
    unserved: BTreeMap<SeqId, u32>,
    next: SeqId,
    finished: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let limits = Limits {
            max_sequences: 1 + random.below(5) as usize,
            least_prompt_tokens: 1 + random.below(4) as usize,
            context_length: 60,
        };
        let scheduler = Scheduler::new(limits);
        Self {
            step_tokens: 1 + random.below(20) as usize,
            random,
            scheduler,
            held: BTreeMap::new(),
            behind: BTreeMap::new(),
            unserved: BTreeMap::new(),
            next: 1,
            finished: 0,
        }
    }

    fn submit(&mut self) {
        let prompt = 1 + self.random.below(40) as usize;
        let max_tokens = 1 + self.random.below(20) as u32;
        let window = 1 + self.random.below(6) as u32;
        self.scheduler.submit(self.next, vec![0; prompt], Some(max_tokens), window).unwrap();
        self.behind.insert(self.next, 0);
        self.next += 1;
    }

    fn remove(&mut self, id: SeqId) {
        assert!(self.scheduler.remove(id).is_some());
        self.held.remove(&id);
        self.behind.remove(&id);
    }

    fn any(&mut self) -> Option<SeqId> {
        let count = self.behind.len() as u64;
        let index = self.random.below(count) as usize;
        self.behind.keys().nth(index).copied()
    }

    fn acknowledge(&mut self, id: SeqId) {
        let generated = self.scheduler.sequence(id).map_or(0, Sequence::generated) as u32;
        self.scheduler.acknowledge(id, generated);
        self.behind.insert(id, 0);
    }

    fn step(&mut self) -> Plan {
        let plan = planned(&mut self.scheduler, self.step_tokens);
        for id in &plan.release {
            assert!(self.held.remove(id).is_some(), "{id} had no place");
        }
        for id in &plan.admitted {
            assert_eq!(self.held.insert(*id, 0), None, "{id} had a place");
        }
        self.check(&plan);
        for row in &plan.rows {
            assert_eq!(self.held.get(&row.id), Some(&row.start), "a gap in {}", row.id);
            assert_eq!(self.scheduler.tokens(row).len(), row.len);
            self.held.insert(row.id, row.start + row.len);
            self.scheduler.computed(row);
            if row.samples {
                self.sample(row.id);
            }
        }
        plan
    }

    fn sample(&mut self, id: SeqId) {
        let full = self.scheduler.push(id, 1);
        let generated = self.scheduler.sequence(id).unwrap().generated() as u32;
        self.scheduler.announce(id, generated);
        *self.behind.entry(id).or_default() += 1;
        if full {
            self.remove(id);
            self.finished += 1;
        }
    }

    fn check(&mut self, plan: &Plan) {
        let limits = self.scheduler.limits;
        let running: BTreeSet<SeqId> = self.scheduler.running.iter().copied().collect();
        assert_eq!(running, self.held.keys().copied().collect(), "the executor holds what runs");
        assert!(running.len() <= limits.max_sequences);
        let tokens: usize = plan.rows.iter().map(|row| row.len).sum();
        assert!(tokens <= self.step_tokens.max(running.len() + limits.least_prompt_tokens));
        let served: BTreeSet<SeqId> = plan.rows.iter().map(|row| row.id).collect();
        assert_eq!(served.len(), plan.rows.len(), "one row each");
        for id in &running {
            let sequence = &self.scheduler.sequences[id];
            assert!(!(sequence.paused() && served.contains(id)), "{id} is paused");
            let decoding = sequence.remaining() == 1 && !sequence.paused();
            assert!(!decoding || served.contains(id), "{id} decodes, so every step serves it");
        }
        self.check_service(&running, &served);
    }

    /// A running sequence is served at the latest when all prompts before it are done.
    fn check_service(&mut self, running: &BTreeSet<SeqId>, served: &BTreeSet<SeqId>) {
        self.unserved.retain(|id, _| running.contains(id));
        for id in running {
            let waits = !self.scheduler.sequences[id].paused() && !served.contains(id);
            let steps = self.unserved.entry(*id).or_default();
            *steps = if waits { *steps + 1 } else { 0 };
            assert!(*steps <= 60 * 5, "{id} starves");
        }
    }
}

#[test]
fn random_histories_keep_every_promise() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..300 {
            match (world.random.below(10), world.any()) {
                (0..=1, _) => world.submit(),
                (2, Some(id)) => world.remove(id),
                (3..=5, Some(id)) => world.acknowledge(id),
                (6, _) => {
                    if let Some(id) = world.scheduler.preempt() {
                        world.held.remove(&id).unwrap();
                    }
                }
                _ => drop(world.step()),
            }
        }
        // From here on every client keeps up: all that is left must finish within the work there is.
        let left = world.behind.len() as u32;
        let (finished, bound) = (world.finished, left * 130 + 10);
        for _ in 0..bound {
            world.behind.clone().keys().for_each(|id| world.acknowledge(*id));
            world.step();
        }
        assert_eq!(world.finished - finished, left, "seed {seed}: {:?}", world.scheduler.counts());
        assert_eq!(world.scheduler.counts(), Counts::default());
        assert!(world.held.is_empty() && world.scheduler.sequences.is_empty());
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
