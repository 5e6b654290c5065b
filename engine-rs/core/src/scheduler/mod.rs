//! Decides what each step computes: which sequences run, which wait, and how the step's tokens are shared. Pure and
//! deterministic: no threads, no clock, no executor; the engine tells it what happened and does what it returns.
//!
//! Promises, proved in `tests`: every sequence that its client keeps up with gets a token within a bounded number of
//! steps; one whose client does not keep up holds up no other; one that is removed leaves nothing behind.

pub mod sequence;
pub mod share;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use sequence::{Place, Sequence};
use share::{Demand, Row, share};
use std::collections::BTreeMap;

/// Names a request and its sequence.
pub type SeqId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many sequences hold a place in the executor at a time.
    pub max_sequences: usize,
    /// Prompt tokens per step even where decoding uses up all of it.
    pub least_prompt_tokens: usize,
    pub context_length: usize,
}

/// Who comes and who goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Sequences that lose their place in the executor.
    pub release: Vec<SeqId>,
    /// Sequences that begin, or begin again.
    pub admitted: Vec<SeqId>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    /// Those of the running ones whose client does not keep up.
    pub paused: usize,
    pub waiting: usize,
    pub parked: usize,
}

#[derive(Debug, Clone)]
pub struct Scheduler {
    limits: Limits,
    sequences: BTreeMap<SeqId, Sequence>,
    /// Both in the order of arrival.
    waiting: Vec<SeqId>,
    running: Vec<SeqId>,
    arrivals: u64,
    /// The executor's memory ran out: nothing is admitted until a running sequence ends.
    crowded: bool,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits { max_sequences: limits.max_sequences.max(1), ..limits },
            sequences: BTreeMap::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            arrivals: 0,
            crowded: false,
        }
    }

    /// Queues a prompt. `max_tokens` of `None` generates to the end of the context.
    pub fn submit(&mut self, id: SeqId, prompt: Vec<u32>, max_tokens: Option<u32>, window: u32) -> Result<()> {
        let limit = self.limits.context_length;
        let requested = max_tokens.map_or(1, |tokens| tokens as usize);
        let whole = prompt.len().saturating_add(requested);
        if prompt.is_empty() {
            return Err(Error::invalid("prompt", "it has no tokens"));
        }
        if whole > limit {
            return Err(Error::ContextOverflow { prompt: prompt.len(), requested, limit });
        }
        if self.sequences.contains_key(&id) {
            return Err(Error::Internal(format!("request {id} exists already")));
        }
        self.arrivals += 1;
        let sequence = Sequence {
            id,
            order: self.arrivals,
            place: Place::Waiting,
            prompt_tokens: prompt.len(),
            tokens: prompt,
            computed: 0,
            limit: if max_tokens.is_some() { whole } else { limit },
            window,
            announced: 0,
            acknowledged: 0,
        };
        self.sequences.insert(id, sequence);
        self.waiting.push(id);
        Ok(())
    }

    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Fills free places from the queue. A paused sequence gives its place to a waiting one.
    pub fn admit(&mut self) -> Admission {
        let mut admission = Admission::default();
        if self.crowded && self.running.iter().any(|id| !self.is_paused(*id)) {
            return admission;
        }
        self.crowded = false;
        while let Some(id) = self.waiting.first().copied() {
            if self.running.len() >= self.limits.max_sequences {
                let Some(victim) = self.last_paused() else {
                    break;
                };
                self.evict(victim);
                admission.release.push(victim);
            }
            self.waiting.remove(0);
            let at = self.place_in(&self.running, id);
            self.running.insert(at, id);
            self.set_place(id, Place::Running);
            admission.admitted.push(id);
        }
        admission
    }

    /// The executor holds the first `computed` tokens of a sequence just admitted already.
    pub fn resume(&mut self, id: SeqId, computed: usize) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.computed = computed.min(sequence.tokens.len() - 1);
        }
    }

    /// Chooses the next step, of about `step_tokens` tokens, decoded ones and prompt chunks together. Empty when there
    /// is nothing to compute until a command arrives.
    pub fn plan(&self, step_tokens: usize) -> Vec<Row> {
        let running = self.running.iter().filter_map(|id| self.sequences.get(id));
        let demands: Vec<Demand> = running
            .filter(|sequence| !sequence.paused())
            .map(|sequence| Demand { id: sequence.id, start: sequence.computed, remaining: sequence.remaining() })
            .collect();
        share(&demands, step_tokens, self.limits.least_prompt_tokens.max(1))
    }

    /// Whether a row planned before is still the next one of its sequence.
    pub fn expects(&self, row: &Row) -> bool {
        let sequence = self.sequences.get(&row.id);
        sequence.is_some_and(|sequence| sequence.place == Place::Running && sequence.computed == row.start)
    }

    /// The tokens of a planned row.
    pub fn tokens(&self, row: &Row) -> &[u32] {
        let tokens = self.sequences.get(&row.id).map_or(&[][..], |sequence| &sequence.tokens);
        tokens.get(row.start..row.start + row.len).unwrap_or_default()
    }

    /// The executor has computed the row.
    pub fn computed(&mut self, row: &Row) {
        if let Some(sequence) = self.sequences.get_mut(&row.id) {
            sequence.computed = row.start + row.len;
        }
    }

    /// Appends a sampled token; true when the sequence may grow no further.
    pub fn push(&mut self, id: SeqId, token: u32) -> bool {
        self.sequences.get_mut(&id).is_none_or(|sequence| {
            sequence.tokens.push(token);
            sequence.full()
        })
    }

    /// The client was told of `tokens` generated tokens in total.
    pub fn announce(&mut self, id: SeqId, tokens: u32) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.announced = sequence.announced.max(tokens);
        }
    }

    /// The client has taken `tokens` generated tokens in total. Unknown sequences are ignored.
    pub fn acknowledge(&mut self, id: SeqId, tokens: u32) {
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return;
        };
        sequence.acknowledged = sequence.acknowledged.max(tokens.min(sequence.announced));
        if sequence.place == Place::Parked && !sequence.paused() {
            self.queue(id);
        }
    }

    /// Gives a sequence back that has ended or was cancelled.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        let sequence = self.sequences.remove(&id)?;
        match sequence.place {
            Place::Waiting => self.waiting.retain(|other| *other != id),
            Place::Running => self.leave(id),
            Place::Parked => {}
        }
        Some(sequence)
    }

    /// The executor's memory is full: takes the place of one sequence, which the executor must release. Paused ones go
    /// first, then the youngest; `None` when there is nobody to give way.
    pub fn preempt(&mut self) -> Option<SeqId> {
        let victim = self.last_paused().or_else(|| self.running.last().copied().filter(|_| self.running.len() > 1))?;
        self.evict(victim);
        self.crowded = true;
        Some(victim)
    }

    pub fn counts(&self) -> Counts {
        let paused = self.running.iter().filter(|id| self.is_paused(**id)).count();
        let (running, waiting) = (self.running.len(), self.waiting.len());
        Counts { running, paused, waiting, parked: self.sequences.len() - running - waiting }
    }

    /// Takes a running sequence's place; all of it must be computed again.
    fn evict(&mut self, id: SeqId) {
        self.leave(id);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.computed = 0;
        }
        if self.is_paused(id) {
            self.set_place(id, Place::Parked);
        } else {
            self.queue(id);
        }
    }

    fn leave(&mut self, id: SeqId) {
        self.running.retain(|other| *other != id);
        self.crowded = false;
    }

    fn queue(&mut self, id: SeqId) {
        let at = self.place_in(&self.waiting, id);
        self.waiting.insert(at, id);
        self.set_place(id, Place::Waiting);
    }

    fn set_place(&mut self, id: SeqId, place: Place) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.place = place;
        }
    }

    /// Where `id` belongs in a list ordered by arrival.
    fn place_in(&self, list: &[SeqId], id: SeqId) -> usize {
        list.partition_point(|other| self.order(*other) < self.order(id))
    }

    fn order(&self, id: SeqId) -> u64 {
        self.sequences.get(&id).map_or(u64::MAX, |sequence| sequence.order)
    }

    fn is_paused(&self, id: SeqId) -> bool {
        self.sequences.get(&id).is_some_and(Sequence::paused)
    }

    fn last_paused(&self) -> Option<SeqId> {
        self.running.iter().rev().copied().find(|id| self.is_paused(*id))
    }
}
