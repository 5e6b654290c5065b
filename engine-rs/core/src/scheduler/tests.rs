//! The scheduler's rules one by one; all of them together, at random, are in `histories`.

use super::*;
use std::collections::BTreeMap;

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
