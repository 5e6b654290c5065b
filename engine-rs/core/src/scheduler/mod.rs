//! Decides what each step computes: which sequences run, which wait, which blocks of the cache they have, and how the
//! step's tokens are shared. Pure and deterministic: no threads, no clock, no executor; the engine tells it what happened
//! and does what it returns.
//!
//! Promises, proved in `tests`: every sequence that its client keeps up with gets a token within a bounded number of
//! steps; one whose client does not keep up holds up no other; one that is removed leaves nothing behind; no block is
//! written that another sequence reads.

mod plan;
pub mod sequence;
pub mod share;
pub mod speculation;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::kv::blocks::BlockPool;
use crate::kv::{BLOCK, BlockId, blocks_for};
pub use plan::Plan;
use sequence::{Place, Rank, Sequence, Submission};
use share::Row;
use std::collections::BTreeMap;
use std::time::Duration;

/// Names a request and its sequence.
pub type SeqId = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many sequences run at a time.
    pub max_sequences: usize,
    /// Prompt tokens per step even where decoding uses up all of it.
    pub least_prompt_tokens: usize,
    pub context_length: usize,
    /// Blocks of the cache, and how many of them may keep what nobody uses at the moment.
    pub blocks: usize,
    pub kept_blocks: usize,
    /// Guesses are made while a step has no more rows than this with them.
    pub speculative_rows: usize,
}

/// Who comes and who goes.
#[derive(Debug, Default)]
pub struct Admission {
    /// Sequences that begin, or begin again, and how many of their tokens need not be computed.
    pub admitted: Vec<(SeqId, usize)>,
    /// How many lost their place.
    pub preempted: usize,
    /// Sequences that will never begin. They are gone already.
    pub failed: Vec<(SeqId, Error)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub running: usize,
    /// Those of the running ones whose client does not keep up.
    pub paused: usize,
    pub waiting: usize,
    pub parked: usize,
    pub blocks_used: usize,
    pub blocks_kept: usize,
    pub blocks: usize,
}

#[derive(Debug, Clone)]
pub struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    sequences: BTreeMap<SeqId, Sequence>,
    /// Both in the order of rank.
    waiting: Vec<SeqId>,
    running: Vec<SeqId>,
    arrivals: u64,
    /// Blocks below this one are known to have memory.
    proven: usize,
}

impl Scheduler {
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { max_sequences: limits.max_sequences.max(1), blocks: limits.blocks.max(1), ..limits };
        Self {
            pool: BlockPool::new(limits.blocks, limits.kept_blocks),
            limits,
            sequences: BTreeMap::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            arrivals: 0,
            proven: 0,
        }
    }

    /// Queues a prompt.
    ///
    /// # Errors
    /// `ContextOverflow` and `KvFull` for one that could never be computed, `InvalidRequest` for one without tokens.
    pub fn submit(&mut self, submission: Submission) -> Result<()> {
        let Submission { id, ref prompt, max_tokens, .. } = submission;
        let limit = self.limits.context_length;
        let requested = max_tokens.map_or(1, |tokens| tokens as usize);
        let whole = prompt.len().saturating_add(requested);
        let room = self.limits.blocks.saturating_mul(BLOCK);
        if prompt.is_empty() {
            return Err(Error::invalid("prompt", "it has no tokens"));
        }
        if whole > limit {
            return Err(Error::ContextOverflow { prompt: prompt.len(), requested, limit });
        }
        // The last token is never computed.
        if whole - 1 > room {
            return Err(Error::KvFull { needed: whole - 1, available: room });
        }
        if self.sequences.contains_key(&id) {
            return Err(Error::Internal(format!("request {id} exists already")));
        }
        self.arrivals += 1;
        let limit = if max_tokens.is_some() { whole } else { limit.min(room + 1) };
        let scope = self.pool.digests().scope(&submission.scope);
        self.sequences.insert(id, Sequence::new(submission, self.arrivals, limit, scope));
        self.queue(id);
        Ok(())
    }

    pub fn sequence(&self, id: SeqId) -> Option<&Sequence> {
        self.sequences.get(&id)
    }

    /// Fills free places from the queue, as far as there are blocks. A paused sequence gives its place to a waiting one.
    pub fn admit(&mut self, now: Duration) -> Admission {
        let mut admission = Admission::default();
        self.expire(now, &mut admission);
        while let Some(id) = self.waiting.first().copied() {
            if !self.make_place(id, &mut admission) {
                if !self.running.is_empty() {
                    break;
                }
                if self.regain() {
                    continue;
                }
                let available = self.pool.capacity() * BLOCK;
                let needed = self.remove(id).map_or(0, |sequence| sequence.tokens.len());
                admission.failed.push((id, Error::KvFull { needed, available }));
                continue;
            }
            self.waiting.remove(0);
            let at = self.place_in(&self.running, id);
            self.running.insert(at, id);
            if let Some(sequence) = self.sequences.get_mut(&id) {
                sequence.enter(&mut self.pool);
                admission.admitted.push((id, sequence.computed));
            }
        }
        admission
    }

    fn expire(&mut self, now: Duration, admission: &mut Admission) {
        let expired = |id: &&SeqId| self.sequences.get(id).is_some_and(|sequence| sequence.expired(now));
        let expired: Vec<SeqId> = self.waiting.iter().filter(expired).copied().collect();
        for id in expired {
            let waited = self.remove(id).map_or(Duration::ZERO, |sequence| now.saturating_sub(sequence.arrived));
            admission.failed.push((id, Error::DeadlineExceeded { waited_ms: waited.as_millis() as u64 }));
        }
    }

    /// Sees that there are a place and blocks for a waiting sequence, and besides a block for each one that runs.
    fn make_place(&mut self, id: SeqId, admission: &mut Admission) -> bool {
        loop {
            let need = self.sequences.get(&id).map_or(0, |sequence| sequence.need(&self.pool));
            let enough = need + self.running.len() <= self.pool.available();
            if enough && self.running.len() < self.limits.max_sequences {
                return true;
            }
            let Some(victim) = self.last_paused() else {
                return false;
            };
            self.evict(victim);
            admission.preempted += 1;
        }
    }

    /// Whether a row planned before is still the next one of its sequence.
    pub fn expects(&self, row: &Row) -> bool {
        let sequence = self.sequences.get(&row.id);
        sequence.is_some_and(|sequence| sequence.place == Place::Running && sequence.computed == row.start)
    }

    /// Whether a stream waits for each step.
    pub fn streams(&self) -> bool {
        let running = self.running.iter().filter_map(|id| self.sequences.get(id));
        running.filter(|sequence| !sequence.paused()).any(|sequence| sequence.remaining() == 1)
    }

    /// The tokens of a planned row, the guessed ones left out.
    pub fn tokens(&self, row: &Row) -> &[u32] {
        let tokens = self.sequences.get(&row.id).map_or(&[][..], |sequence| &sequence.tokens);
        tokens.get(row.start..row.start + row.len).unwrap_or_default()
    }

    /// The blocks of a planned row.
    pub fn blocks(&self, row: &Row) -> &[BlockId] {
        let blocks = self.sequences.get(&row.id).map_or(&[][..], |sequence| &sequence.blocks);
        &blocks[..blocks_for(row.end()).min(blocks.len())]
    }

    /// The executor has computed the row, and `right` of the guessed tokens were right; those that it sampled are pushed.
    pub fn computed(&mut self, row: &Row, right: usize) {
        self.proven = self.blocks(row).iter().fold(self.proven, |proven, id| proven.max(*id as usize + 1));
        if let Some(sequence) = self.sequences.get_mut(&row.id) {
            sequence.advance(row.start + row.len + right, &mut self.pool);
            if let Some(speculation) = sequence.speculation.as_mut().filter(|_| !row.guess.is_empty()) {
                speculation.learn(row.guess.len(), right);
            }
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

    /// Gives a sequence back that has ended or was cancelled. What its blocks hold can be found again.
    pub fn remove(&mut self, id: SeqId) -> Option<Sequence> {
        self.take(id, false)
    }

    /// Gives a sequence back that failed: what its blocks hold is not to be trusted.
    pub fn discard(&mut self, id: SeqId) -> Option<Sequence> {
        self.take(id, true)
    }

    fn take(&mut self, id: SeqId, spoiled: bool) -> Option<Sequence> {
        let mut sequence = self.sequences.remove(&id)?;
        match sequence.place {
            Place::Waiting => self.waiting.retain(|other| *other != id),
            Place::Running => self.running.retain(|other| *other != id),
            Place::Parked => {}
        }
        sequence.leave(&mut self.pool, spoiled);
        if self.sequences.is_empty() {
            self.regain();
        }
        Some(sequence)
    }

    /// The executor got no memory for a block of `rows`: goes on with those that have proven good. False if that helps
    /// nobody; else the rows are to be planned again.
    pub fn shrink(&mut self, rows: &[Row]) -> bool {
        let good = rows.iter().flat_map(|row| self.blocks(row)).all(|id| (*id as usize) < self.proven);
        let alone = self.running.len() == 1 && rows.iter().any(|row| self.blocks(row).len() > self.proven);
        if good || alone || self.proven == 0 {
            return false;
        }
        self.pool.shrink(self.proven);
        let beyond = |id: &&SeqId| {
            let blocks = self.sequences.get(id).map_or(&[][..], |sequence| &sequence.blocks);
            blocks.iter().any(|block| *block as usize >= self.proven)
        };
        let victims: Vec<SeqId> = self.running.iter().filter(beyond).copied().collect();
        victims.into_iter().for_each(|id| self.evict(id));
        true
    }

    /// Allows the blocks again for which there was no memory: now there may be. False if there are no such.
    fn regain(&mut self) -> bool {
        let lost = self.pool.capacity() < self.limits.blocks;
        self.pool.restore(self.limits.blocks);
        lost
    }

    pub fn counts(&self) -> Counts {
        let paused = self.running.iter().filter(|id| self.is_paused(**id)).count();
        let (running, waiting) = (self.running.len(), self.waiting.len());
        Counts {
            running,
            paused,
            waiting,
            parked: self.sequences.len() - running - waiting,
            blocks_used: self.pool.used(),
            blocks_kept: self.pool.idle(),
            blocks: self.pool.capacity(),
        }
    }

    /// Takes a running sequence's place. Its blocks stay known, so that most need not be computed again.
    fn evict(&mut self, id: SeqId) {
        self.running.retain(|other| *other != id);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.leave(&mut self.pool, false);
            sequence.place = Place::Parked;
        }
        if !self.is_paused(id) {
            self.queue(id);
        }
    }

    fn queue(&mut self, id: SeqId) {
        let at = self.place_in(&self.waiting, id);
        self.waiting.insert(at, id);
        if let Some(sequence) = self.sequences.get_mut(&id) {
            sequence.place = Place::Waiting;
        }
    }

    /// Where `id` belongs in a list ordered by rank.
    fn place_in(&self, list: &[SeqId], id: SeqId) -> usize {
        list.partition_point(|other| self.rank(*other) < self.rank(id))
    }

    fn rank(&self, id: SeqId) -> Rank {
        self.sequences.get(&id).map_or((i128::MAX, u64::MAX), |sequence| sequence.rank)
    }

    fn is_paused(&self, id: SeqId) -> bool {
        self.sequences.get(&id).is_some_and(Sequence::paused)
    }

    fn last_paused(&self) -> Option<SeqId> {
        self.running.iter().rev().copied().find(|id| self.is_paused(*id))
    }
}
