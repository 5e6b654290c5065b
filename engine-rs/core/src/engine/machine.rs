//! The engine without its threads: commands in, events out, one step at a time. It joins the scheduler's decisions, the
//! executor's numbers and the generations' texts, and keeps a failure inside the request that it belongs to.

use super::RunOptions;
use super::generation::Generation;
use super::language::Language;
use super::pace::Pace;
use super::places::{Places, guarded};
use super::reading::Prepared;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::event::{Event, Reason, Timings};
use crate::executor::{Executor, Logits};
use crate::grammar::Stage;
use crate::request::GenerateRequest;
use crate::sampler::random::split_mix;
use crate::scheduler::share::Row;
use crate::scheduler::{Limits, Scheduler};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// However many sequences decode, prompts go on.
const LEAST_PROMPT_TOKENS: usize = 8;

pub type Clock = Box<dyn Fn() -> Instant + Send>;

pub struct Machine {
    places: Places,
    language: Arc<dyn Language>,
    scheduler: Scheduler,
    limits: Limits,
    /// Requests whose prompt is being read, with the time of their submission.
    reading: BTreeMap<u64, Instant>,
    generations: BTreeMap<u64, Generation>,
    seed: u64,
    pace: Pace,
    clock: Clock,
    counters: Statistics,
    /// What to tell the clients; the owner takes it.
    pub events: Vec<Event>,
}

impl Machine {
    pub fn new(executor: Box<dyn Executor>, language: Arc<dyn Language>, options: RunOptions, clock: Clock) -> Self {
        let places = Places::new(executor, options.kept_tokens);
        let limits = Limits {
            max_sequences: options.max_sequences,
            least_prompt_tokens: LEAST_PROMPT_TOKENS,
            context_length: places.context_length(),
        };
        Self {
            places,
            language,
            scheduler: Scheduler::new(limits),
            limits,
            reading: BTreeMap::new(),
            generations: BTreeMap::new(),
            seed: options.seed,
            pace: Pace::new(options.step_tokens),
            clock,
            counters: Statistics::default(),
            events: Vec::new(),
        }
    }

    /// A request was accepted; its prompt is being read.
    pub fn open(&mut self, id: u64, submitted: Instant) {
        self.reading.insert(id, submitted);
    }

    /// Its prompt is read. Requests cancelled meanwhile are unknown by now.
    pub fn ready(&mut self, id: u64, request: GenerateRequest, prepared: Result<Prepared>) {
        let Some(submitted) = self.reading.remove(&id) else {
            return;
        };
        if let Err(error) = self.queue(id, request, prepared, submitted) {
            self.fail(id, &error);
        }
    }

    fn queue(
        &mut self,
        id: u64,
        request: GenerateRequest,
        prepared: Result<Prepared>,
        submitted: Instant,
    ) -> Result<()> {
        let mut prepared = prepared?;
        let mut seed = self.seed ^ id;
        let (max_tokens, window) = (request.max_tokens, request.window);
        let prompt = std::mem::take(&mut prepared.prompt);
        let (prompt_tokens, reasoning) = (prompt.len(), prepared.stage == Stage::Inside);
        let generation = Generation::new(id, request, &prompt, prepared, split_mix(&mut seed), submitted);
        self.scheduler.submit(id, prompt, max_tokens, window)?;
        self.generations.insert(id, generation);
        self.events.push(Event::Started { id, prompt_tokens, reasoning });
        Ok(())
    }

    /// Ends a request, wherever it is. Unknown ones are ignored.
    pub fn cancel(&mut self, id: u64) {
        let event = if let Some(generation) = self.generations.remove(&id) {
            self.forget(id);
            generation.finished(Reason::Cancelled)
        } else if self.reading.remove(&id).is_some() {
            let timings = Timings::default();
            Event::Finished {
                id,
                reason: Reason::Cancelled,
                prompt_tokens: 0,
                completion_tokens: 0,
                reasoning_tokens: 0,
                timings,
            }
        } else {
            return;
        };
        self.events.push(event);
        self.counters.cancelled += 1;
    }

    pub fn acknowledge(&mut self, id: u64, tokens: u32) {
        self.scheduler.acknowledge(id, tokens);
    }

    /// Does one step; false when there is nothing to do until a command arrives.
    pub fn step(&mut self) -> bool {
        self.admit();
        let rows = self.scheduler.plan(self.pace.tokens());
        if rows.is_empty() {
            return false;
        }
        match self.compute(&rows) {
            Ok(logits) => self.deliver(&rows, &logits),
            Err(error) => self.recover(&rows, error),
        }
        true
    }

    fn admit(&mut self) {
        let admission = self.scheduler.admit();
        for id in &admission.release {
            self.places.leave(*id);
            self.counters.preemptions += 1;
        }
        let now = (self.clock)();
        for id in admission.admitted {
            self.enter(id, now);
        }
    }

    fn enter(&mut self, id: u64, now: Instant) {
        let generation = self.generations.get_mut(&id);
        if let (Some(generation), Some(sequence)) = (generation, self.scheduler.sequence(id)) {
            generation.admitted(now);
            let computed = self.places.enter(id, generation.scope(), &sequence.tokens);
            self.scheduler.resume(id, computed);
            self.counters.reused_tokens += computed as u64;
        }
    }

    /// Ends every open request with an error, and starts afresh.
    pub fn fail_all(&mut self, error: &Error) {
        let open: Vec<u64> = self.reading.keys().chain(self.generations.keys()).copied().collect();
        for id in open {
            self.reading.remove(&id);
            self.fail(id, error);
        }
        while self.places.give_up() {}
        self.scheduler = Scheduler::new(self.limits);
    }

    pub fn statistics(&self) -> Statistics {
        let counts = self.scheduler.counts();
        Statistics {
            live: self.places.live(),
            kept: self.places.kept(),
            kv_bytes: self.places.kv_bytes(),
            paused: counts.paused,
            waiting: counts.waiting + self.reading.len(),
            parked: counts.parked,
            ..self.counters
        }
    }

    fn compute(&mut self, rows: &[Row]) -> Result<Logits> {
        let begin = (self.clock)();
        let outcome = self.places.step(rows, &self.scheduler);
        let elapsed = (self.clock)().saturating_duration_since(begin);
        self.counters.busy += elapsed;
        self.counters.steps += 1;
        if outcome.is_ok() {
            let tokens = rows.iter().map(|row| row.len).sum();
            self.pace.observe(tokens, elapsed);
        }
        outcome
    }

    /// A step failed: nothing of it counts. Full memory takes the place of one sequence; anything else is tried again
    /// one sequence at a time, so that only those fail that cannot be computed.
    fn recover(&mut self, rows: &[Row], error: Error) {
        self.places.rewind(rows);
        if matches!(error, Error::KvFull { .. } | Error::OutOfMemory { .. }) && self.make_room() {
            return;
        }
        if let [row] = rows {
            self.fail(row.id, &error);
            return;
        }
        self.counters.retries += 1;
        for row in rows {
            let row = std::slice::from_ref(row);
            // One that lost its place to another meanwhile is planned again.
            if !self.scheduler.expects(&row[0]) {
                continue;
            }
            match self.compute(row) {
                Ok(logits) => self.deliver(row, &logits),
                Err(error) => self.recover(row, error),
            }
        }
    }

    /// Memory is full: gives up a kept sequence, or takes the place of a running one. False if there is none.
    fn make_room(&mut self) -> bool {
        if self.places.give_up() {
            return true;
        }
        let Some(victim) = self.scheduler.preempt() else {
            return false;
        };
        self.places.leave(victim);
        self.counters.preemptions += 1;
        true
    }

    fn deliver(&mut self, rows: &[Row], logits: &Logits) {
        let now = (self.clock)();
        let mut sampled = logits.rows.chunks_exact(logits.vocab.max(1));
        for row in rows {
            self.count(row);
            self.scheduler.computed(row);
            if row.samples
                && let Some(logits) = sampled.next()
                && let Err(error) = guarded(|| self.next_token(row.id, logits, now))
            {
                self.fail(row.id, &error);
            }
        }
    }

    fn next_token(&mut self, id: u64, logits: &[f32], now: Instant) -> Result<()> {
        let Some(generation) = self.generations.get_mut(&id) else {
            return Ok(());
        };
        let token = generation.sample(logits, &*self.language)?;
        self.counters.completion_tokens += 1;
        let full = self.scheduler.push(id, token);
        let told = self.events.len();
        let reason = generation.push(token, full, &*self.language, now, &mut self.events);
        if self.events.len() > told {
            self.scheduler.announce(id, generation.completion_tokens());
        }
        if reason.is_some() {
            self.keep(id);
            self.counters.finished += 1;
        }
        Ok(())
    }

    fn count(&mut self, row: &Row) {
        let prompt = self.scheduler.sequence(row.id).map_or(0, |sequence| sequence.prompt_tokens);
        let end = (row.start + row.len).min(prompt);
        self.counters.prompt_tokens += end.saturating_sub(row.start) as u64;
    }

    fn fail(&mut self, id: u64, error: &Error) {
        self.generations.remove(&id);
        self.forget(id);
        self.counters.failed += 1;
        self.events.push(Event::Failed { id, code: error.code(), message: error.to_string() });
    }

    fn forget(&mut self, id: u64) {
        self.scheduler.remove(id);
        self.places.leave(id);
    }

    /// Ends a finished request; what was computed for it stays a while.
    fn keep(&mut self, id: u64) {
        let generation = self.generations.remove(&id);
        let sequence = self.scheduler.remove(id);
        if let (Some(generation), Some(mut sequence)) = (generation, sequence) {
            sequence.tokens.truncate(sequence.computed);
            self.places.keep(id, generation.scope(), sequence.tokens);
        }
    }
}
