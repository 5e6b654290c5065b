//! One request as the scheduler sees it: its tokens, how many of them are computed, and how far ahead of its client it is.

use super::SeqId;

/// Where a sequence is. Only running ones hold a place in the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the queue, ordered by arrival.
    Waiting,
    Running,
    /// Gave its place up because its client does not keep up; queues again when the client does.
    Parked,
}

#[derive(Debug, Clone)]
pub struct Sequence {
    pub id: SeqId,
    /// Position in the order of arrival, kept for life.
    pub order: u64,
    pub place: Place,
    /// The prompt, then the generated tokens.
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    /// How many of `tokens` the executor holds.
    pub computed: usize,
    /// Generation ends when `tokens` is this long.
    pub limit: usize,
    pub window: u32,
    /// Generated tokens that the client was told of, and those it took.
    pub announced: u32,
    pub acknowledged: u32,
}

impl Sequence {
    /// Tokens to compute before the next one can be sampled: 1 while decoding.
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    pub fn full(&self) -> bool {
        self.tokens.len() >= self.limit
    }

    /// Tokens held back in unfinished text do not count: the client cannot acknowledge what it was not told.
    pub fn paused(&self) -> bool {
        self.announced.saturating_sub(self.acknowledged) >= self.window
    }
}
