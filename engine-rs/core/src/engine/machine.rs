//! The engine without its threads: commands in, events out, one step at a time. It joins the scheduler's decisions, the
//! executor's numbers and the generations' texts, and keeps a failure inside the request that it belongs to.

use super::RunOptions;
use super::compute::{answers, compute, guarded};
use super::generation::Generation;
use super::language::Language;
use super::pace::Pace;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::event::{Event, Reason, Timings, Work};
use crate::executor::{Executor, Logits};
use crate::request::GenerateRequest;
use crate::sampler::random::split_mix;
use crate::scheduler::sequence::Submission;
use crate::scheduler::share::Row;
use crate::scheduler::{Limits, Scheduler, SeqId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub type Clock = Box<dyn Fn() -> Instant + Send>;

pub struct Machine {
    executor: Box<dyn Executor>,
    language: Arc<dyn Language>,
    scheduler: Scheduler,
    limits: Limits,
    /// Requests whose prompt is being read, with the time of their submission.
    reading: BTreeMap<u64, Instant>,
    generations: BTreeMap<u64, Generation>,
    options: RunOptions,
    pace: Pace,
    clock: Clock,
    /// The scheduler's times count from here.
    began: Instant,
    counters: Statistics,
    /// What to tell the clients; the owner takes it.
    pub events: Vec<Event>,
}

impl Machine {
    pub fn new(executor: Box<dyn Executor>, language: Arc<dyn Language>, options: RunOptions, clock: Clock) -> Self {
        let limits = options.limits(&*executor);
        Self {
            executor,
            language,
            scheduler: Scheduler::new(limits),
            limits,
            reading: BTreeMap::new(),
            generations: BTreeMap::new(),
            options,
            pace: Pace::new(options.step_tokens),
            began: clock(),
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

    fn queue(&mut self, id: u64, request: GenerateRequest, prompt: Result<Vec<u32>>, submitted: Instant) -> Result<()> {
        let prompt = prompt?;
        let mut seed = self.options.seed ^ id;
        let prompt_tokens = prompt.len();
        let arrived = submitted.saturating_duration_since(self.began);
        let submission = Submission {
            id,
            max_tokens: request.max_tokens,
            window: request.window,
            scope: request.scope.clone(),
            priority: request.priority,
            arrived,
            deadline: request.deadline_ms.map(|deadline| arrived.saturating_add(Duration::from_millis(deadline))),
            speculate: request.speculate.unwrap_or(self.options.speculate),
            prompt: prompt.clone(),
        };
        self.scheduler.submit(submission)?;
        let generation = Generation::new(id, request, &prompt, split_mix(&mut seed), submitted);
        self.generations.insert(id, generation);
        self.events.push(Event::Started { id, prompt_tokens });
        Ok(())
    }

    /// Ends a request, wherever it is. Unknown ones are ignored.
    pub fn cancel(&mut self, id: u64) {
        let event = if let Some(generation) = self.generations.remove(&id) {
            self.scheduler.remove(id);
            generation.finished(Reason::Cancelled)
        } else if self.reading.remove(&id).is_some() {
            let (timings, work) = (Timings::default(), Work::default());
            Event::Finished { id, reason: Reason::Cancelled, prompt_tokens: 0, completion_tokens: 0, timings, work }
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
        let plan = self.scheduler.plan(self.pace.tokens(self.scheduler.streams()));
        self.counters.preemptions += plan.preempted as u64;
        let again = !plan.failed.is_empty() || plan.preempted > 0;
        self.fail_each(plan.failed);
        if plan.rows.is_empty() {
            return again;
        }
        match self.compute(&plan.rows) {
            Ok(logits) => self.deliver(&plan.rows, &logits),
            Err(error) => self.recover(&plan.rows, error),
        }
        true
    }

    fn admit(&mut self) {
        let now = (self.clock)();
        let admission = self.scheduler.admit(now.saturating_duration_since(self.began));
        self.counters.preemptions += admission.preempted as u64;
        for (id, cached) in admission.admitted {
            self.counters.reused_tokens += cached as u64;
            self.counters.prefix_hits += u64::from(cached > 0);
            if let Some(generation) = self.generations.get_mut(&id) {
                generation.admitted(now, cached);
            }
        }
        self.fail_each(admission.failed);
    }

    fn fail_each(&mut self, failed: Vec<(SeqId, Error)>) {
        failed.into_iter().for_each(|(id, error)| self.fail(id, &error));
    }

    /// Ends every open request with an error, and starts afresh.
    pub fn fail_all(&mut self, error: &Error) {
        let open: Vec<u64> = self.reading.keys().chain(self.generations.keys()).copied().collect();
        for id in open {
            self.reading.remove(&id);
            self.fail(id, error);
        }
        self.scheduler = Scheduler::new(self.limits);
    }

    pub fn statistics(&self) -> Statistics {
        let counts = self.scheduler.counts();
        Statistics {
            live: counts.running,
            kv_bytes: self.executor.kv_bytes(),
            blocks_used: counts.blocks_used,
            blocks_kept: counts.blocks_kept,
            blocks: counts.blocks,
            paused: counts.paused,
            waiting: counts.waiting + self.reading.len(),
            parked: counts.parked,
            ..self.counters
        }
    }

    fn compute(&mut self, rows: &[Row]) -> Result<Logits> {
        let begin = (self.clock)();
        let outcome = compute(&mut *self.executor, rows, &self.scheduler);
        let elapsed = (self.clock)().saturating_duration_since(begin);
        self.count(rows, elapsed);
        if outcome.is_ok() {
            self.pace.observe(rows.iter().map(Row::width).sum(), elapsed);
        }
        outcome
    }

    fn count(&mut self, rows: &[Row], elapsed: Duration) {
        let tokens: usize = rows.iter().map(Row::width).sum();
        let prompt: usize = rows.iter().map(|row| self.prompt_part(row)).sum();
        let share = elapsed.mul_f64(prompt as f64 / tokens.max(1) as f64);
        self.counters.busy += elapsed;
        self.counters.prompt_time += share;
        self.counters.completion_time += elapsed.saturating_sub(share);
        self.counters.steps += 1;
        self.counters.step_sequences += rows.len() as u64;
        self.counters.step_tokens += tokens as u64;
    }

    /// How many tokens of the row are the prompt's.
    fn prompt_part(&self, row: &Row) -> usize {
        let prompt = self.scheduler.sequence(row.id).map_or(0, |sequence| sequence.prompt_tokens);
        (row.start + row.len).min(prompt).saturating_sub(row.start)
    }

    /// A step failed: nothing of it counts. Where memory ran out it goes on with less of it; anything else is tried
    /// again one sequence at a time, so that only those fail that cannot be computed.
    fn recover(&mut self, rows: &[Row], error: Error) {
        if matches!(error, Error::OutOfMemory { .. }) && self.scheduler.shrink(rows) {
            self.counters.preemptions += rows.iter().filter(|row| !self.scheduler.expects(row)).count() as u64;
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
            self.counters.prompt_tokens += self.prompt_part(row) as u64;
            let logits: Vec<&[f32]> = sampled.by_ref().take(answers(row)).collect();
            if let Err(error) = guarded(|| self.follow(row, &logits, now)) {
                self.fail(row.id, &error);
            }
        }
    }

    /// Samples what follows the row: from each row of logits in turn, for as long as what was sampled is what was
    /// guessed. So the tokens are those that would have come one at a time.
    fn follow(&mut self, row: &Row, logits: &[&[f32]], now: Instant) -> Result<()> {
        let (mut right, mut ended) = (0, false);
        for (at, logits) in logits.iter().enumerate() {
            let Some((token, end)) = self.next_token(row.id, logits, now)? else {
                break;
            };
            ended = end;
            if ended || row.guess.get(at) != Some(&token) {
                break;
            }
            right += 1;
        }
        self.scheduler.computed(row, right);
        self.counters.drafted_tokens += row.guess.len() as u64;
        self.counters.accepted_tokens += right as u64;
        if let Some(generation) = self.generations.get_mut(&row.id) {
            generation.guessed(row.guess.len(), right);
        }
        if ended {
            self.finish(row.id);
        }
        Ok(())
    }

    /// The next token, and whether it is the last.
    fn next_token(&mut self, id: u64, logits: &[f32], now: Instant) -> Result<Option<(u32, bool)>> {
        let Some(generation) = self.generations.get_mut(&id) else {
            return Ok(None);
        };
        let token = generation.sample(logits, &*self.language)?;
        self.counters.completion_tokens += 1;
        let full = self.scheduler.push(id, token);
        let told = self.events.len();
        let reason = generation.push(token, full, &*self.language, now, &mut self.events);
        if self.events.len() > told {
            self.scheduler.announce(id, generation.completion_tokens());
        }
        generation.ended = reason;
        Ok(Some((token, reason.is_some())))
    }

    /// Ends a request whose last token is known; what was computed for it stays a while.
    fn finish(&mut self, id: u64) {
        if let Some(generation) = self.generations.remove(&id)
            && let Some(reason) = generation.ended
        {
            self.events.push(generation.finished(reason));
        }
        self.scheduler.remove(id);
        self.counters.finished += 1;
    }

    fn fail(&mut self, id: u64, error: &Error) {
        self.generations.remove(&id);
        self.scheduler.discard(id);
        self.counters.failed += 1;
        self.events.push(Event::Failed { id, code: error.code(), message: error.to_string() });
    }
}
