//! Random histories of the machine over the scripted model: whatever happens beside a request, it gets the tokens that it
//! gets alone, and nothing of it is left behind.

use super::RunOptions;
use super::machine::Machine;
use super::scripted::Scripted;
use super::tests::{OPTIONS, Seen, machine_with, run, seen, submit};
use crate::executor::Executor;
use crate::request::{GenerateRequest, Prompt};
use crate::testing::Noise;
use std::collections::BTreeMap;

/// Prompts with few beginnings, of lengths around those of a block.
fn random_request(noise: &mut Noise) -> GenerateRequest {
    let beginning =
        ["x", "the same beginning ", "what was said before, and then more of it; "][noise.below(3) as usize];
    let mut text = beginning.repeat(1 + noise.below(4) as usize);
    text.push_str(["", "~", "one", "two"][noise.below(4) as usize]);
    let mut request = GenerateRequest::new(Prompt::Text(text));
    request.temperature = [0.0, 1.0][noise.below(2) as usize];
    request.seed = Some(u64::from(noise.below(3)));
    request.max_tokens = Some(1 + noise.below(60));
    request.window = [3, 10, 256][noise.below(3) as usize];
    request.scope = ["", "other"][noise.below(2) as usize].to_owned();
    request.priority = noise.below(3) as i32;
    request.speculate = [None, Some(false)][noise.below(2) as usize];
    if noise.below(6) == 0 {
        request.stop = vec!["ab".to_owned()];
    }
    if noise.below(6) == 0 {
        request.logprobs = Some(2);
    }
    request
}

/// What the request gets with the machine to itself and no guesses.
fn alone(request: &GenerateRequest) -> Seen {
    let mut machine = machine_with(Scripted::default(), OPTIONS);
    let request = GenerateRequest { speculate: Some(false), window: 256, ..request.clone() };
    submit(&mut machine, 1, request);
    let events = run(&mut machine);
    seen(&events, 1)
}

struct History {
    noise: Noise,
    machine: Machine,
    requests: BTreeMap<u64, GenerateRequest>,
    cancelled: Vec<u64>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut noise = Noise::new(seed);
        let mut executor = Scripted::default();
        let block = executor.block_bytes();
        // The longest request takes 8 blocks.
        if noise.below(3) == 0 {
            executor.memory = 8 + noise.below(8) as usize;
        }
        let options = RunOptions {
            max_sequences: 1 + noise.below(6) as usize,
            step_tokens: 1 + noise.below(80) as usize,
            kv_bytes: (noise.below(2) == 0).then(|| block * (8 + noise.below(20) as usize)),
            kept_tokens: noise.below(600) as usize,
            speculate: true,
            seed: 0,
        };
        let machine = machine_with(executor, options);
        Self { noise, machine, requests: BTreeMap::new(), cancelled: Vec::new() }
    }

    fn act(&mut self) {
        let id = self.requests.len() as u64;
        let any = u64::from(self.noise.below(id.max(1) as u32));
        match self.noise.below(12) {
            0 | 1 if id < 14 => {
                let request = random_request(&mut self.noise);
                submit(&mut self.machine, id, request.clone());
                self.requests.insert(id, request);
            }
            2 if self.noise.below(4) == 0 && id > 0 => {
                self.machine.cancel(any);
                self.cancelled.push(any);
            }
            3..=5 => self.machine.acknowledge(any, u32::MAX),
            _ => drop(self.machine.step()),
        }
    }

    /// Every client keeps up until all is done.
    fn finish(&mut self) {
        for _ in 0..5000 {
            (0..self.requests.len() as u64).for_each(|id| self.machine.acknowledge(id, u32::MAX));
            if !self.machine.step() {
                return;
            }
        }
        panic!("no end: {:?}", self.machine.statistics());
    }
}

#[test]
fn histories_change_no_token() {
    let (mut preempted, mut reused, mut accepted, mut whole) = (0, 0, 0, 0);
    for seed in 0..300 {
        let mut history = History::new(seed);
        (0..160).for_each(|_| history.act());
        history.finish();
        let statistics = history.machine.statistics();
        let idle = [statistics.live, statistics.waiting, statistics.parked, statistics.blocks_used];
        assert_eq!(idle, [0; 4], "seed {seed}");
        assert_eq!((statistics.failed, statistics.retries), (0, 0), "seed {seed}");
        let events = std::mem::take(&mut history.machine.events);
        for (id, request) in &history.requests {
            let (got, expected) = (seen(&events, *id), alone(request));
            if history.cancelled.contains(id) && got.end == "cancelled" {
                assert!(expected.text.starts_with(&got.text), "seed {seed}, request {id}");
            } else {
                assert_eq!(got, expected, "seed {seed}, request {id}: {request:?}");
                whole += 1;
            }
        }
        preempted += statistics.preemptions;
        reused += statistics.reused_tokens;
        accepted += statistics.accepted_tokens;
    }
    // All that could change a token has happened often.
    assert!(
        preempted > 300 && reused > 30_000 && accepted > 1_000 && whole > 2_000,
        "{preempted} {reused} {accepted} {whole}"
    );
}
