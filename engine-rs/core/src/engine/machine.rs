//! The engine without its threads: commands in, events out, one step at a time. It joins the scheduler's decisions, the
//! executor's numbers and the generations' texts, and keeps a failure inside the request that it belongs to.

use super::RunOptions;
use super::generation::Generation;
use super::language::Language;
use super::pace::Pace;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::event::{Event, Reason, Timings};
use crate::executor::{Chunk, Executor, Logits, Want};
use crate::request::GenerateRequest;
use crate::sampler::random::split_mix;
use crate::scheduler::share::Row;
use crate::scheduler::{Limits, Scheduler};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// However many sequences decode, prompts go on.
const LEAST_PROMPT_TOKENS: usize = 8;

pub type Clock = Box<dyn Fn() -> Instant + Send>;

pub struct Machine {
    executor: Box<dyn Executor>,
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
    pub fn new(
        executor: Box<dyn Executor>,
        language: Arc<dyn Language>,
        options: RunOptions,
        clock: Clock,
    ) -> Self {
        let limits = Limits {
            max_sequences: options.max_sequences,
            least_prompt_tokens: LEAST_PROMPT_TOKENS,
            context_length: executor.context_length(),
        };
        Self {
            executor,
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
    pub fn ready(&mut self, id: u64, request: GenerateRequest, prompt: Result<Vec<u32>>) {
        let Some(submitted) = self.reading.remove(&id) else {
            return;
        };
        if let Err(error) = self.queue(id, request, prompt, submitted) {
            self.fail(id, &error);
        }
    }

    fn queue(
        &mut self,
        id: u64,
        request: GenerateRequest,
        prompt: Result<Vec<u32>>,
        submitted: Instant,
    ) -> Result<()> {
        let prompt = prompt?;
        let mut seed = self.seed ^ id;
        let (max_tokens, window) = (request.max_tokens, request.window);
        let generation = Generation::new(id, request, &prompt, split_mix(&mut seed), submitted);
        let prompt_tokens = prompt.len();
        self.scheduler.submit(id, prompt, max_tokens, window)?;
        self.generations.insert(id, generation);
        self.events.push(Event::Started { id, prompt_tokens });
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
        let plan = self.scheduler.plan(self.pace.tokens());
        for id in &plan.release {
            self.executor.release(*id);
            self.counters.preemptions += 1;
        }
        let now = (self.clock)();
        for id in &plan.admitted {
            if let Some(generation) = self.generations.get_mut(id) {
                generation.admitted(now);
            }
        }
        if plan.rows.is_empty() {
            return false;
        }
        match self.compute(&plan.rows) {
            Ok(logits) => self.deliver(&plan.rows, &logits),
            Err(error) => self.recover(&plan.rows, error),
        }
        true
    }

    /// Ends every open request with an error, and starts afresh.
    pub fn fail_all(&mut self, error: &Error) {
        let open: Vec<u64> = self
            .reading
            .keys()
            .chain(self.generations.keys())
            .copied()
            .collect();
        for id in open {
            self.reading.remove(&id);
            self.fail(id, error);
        }
        self.scheduler = Scheduler::new(self.limits);
    }

    pub fn statistics(&self) -> Statistics {
        let counts = self.scheduler.counts();
        Statistics {
            live: self.executor.live_sequences(),
            kv_bytes: self.executor.kv_bytes(),
            paused: counts.paused,
            waiting: counts.waiting + self.reading.len(),
            parked: counts.parked,
            ..self.counters
        }
    }

    /// Runs rows through the executor. A panic in it is an error like any other.
    fn compute(&mut self, rows: &[Row]) -> Result<Logits> {
        let Self {
            executor,
            scheduler,
            ..
        } = self;
        let chunks: Vec<Chunk<'_>> = rows.iter().map(|row| chunk(scheduler, row)).collect();
        let begin = (self.clock)();
        let outcome = guarded(|| executor.step(&chunks));
        let elapsed = (self.clock)().saturating_duration_since(begin);
        self.counters.busy += elapsed;
        self.counters.steps += 1;
        let logits = outcome?;
        self.pace
            .observe(rows.iter().map(|row| row.len).sum(), elapsed);
        let wanted = rows.iter().filter(|row| row.samples).count();
        if logits.rows.len() != wanted * logits.vocab {
            return Err(Error::Internal(format!(
                "{wanted} rows of logits wanted, {} numbers came",
                logits.rows.len()
            )));
        }
        Ok(logits)
    }

    /// A step failed: nothing of it counts. Full memory takes the place of one sequence; anything else is tried again
    /// one sequence at a time, so that only those fail that cannot be computed.
    fn recover(&mut self, rows: &[Row], error: Error) {
        rows.iter()
            .for_each(|row| self.executor.truncate(row.id, row.start));
        let full = matches!(error, Error::KvFull { .. } | Error::OutOfMemory { .. });
        if full && let Some(victim) = self.scheduler.preempt() {
            self.executor.release(victim);
            self.counters.preemptions += 1;
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
            self.generations.remove(&id);
            self.forget(id);
            self.counters.finished += 1;
        }
        Ok(())
    }

    fn count(&mut self, row: &Row) {
        let prompt = self
            .scheduler
            .sequence(row.id)
            .map_or(0, |sequence| sequence.prompt_tokens);
        let end = (row.start + row.len).min(prompt);
        self.counters.prompt_tokens += end.saturating_sub(row.start) as u64;
    }

    fn fail(&mut self, id: u64, error: &Error) {
        self.generations.remove(&id);
        self.forget(id);
        self.counters.failed += 1;
        self.events.push(Event::Failed {
            id,
            code: error.code(),
            message: error.to_string(),
        });
    }

    fn forget(&mut self, id: u64) {
        self.scheduler.remove(id);
        // A broken executor must not keep the request's end from its client.
        let _ = guarded(|| {
            self.executor.release(id);
            Ok(())
        });
    }
}

fn chunk<'a>(scheduler: &'a Scheduler, row: &Row) -> Chunk<'a> {
    let want = if row.samples {
        Want::Last
    } else {
        Want::Nothing
    };
    Chunk {
        seq: row.id,
        start: row.start,
        tokens: scheduler.tokens(row),
        want,
    }
}

/// Calls `act`, and turns a panic in it into an error. What `act` changes must bear being left half done: the caller
/// drops it.
pub fn guarded<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Error::Internal(format!("panic: {text}")))
    })
}
