//! One request as the scheduler sees it: its tokens, how many of them are computed and in which blocks, and how far ahead
//! of its client it is.

use std::time::Duration;

use super::SeqId;
use super::speculation::Speculation;
use crate::kv::blocks::{BlockPool, Found};
use crate::kv::digest::Digest;
use crate::kv::{BLOCK, BlockId, blocks_for};

/// One level of priority counts as much as having waited this much longer. So the urgent go first, and nobody waits for
/// ever: whoever has waited long enough goes before the urgent that come now.
pub const AGING: Duration = Duration::from_secs(10);

/// What the scheduler is asked for. Times count from when the engine began.
#[derive(Debug, Clone)]
pub struct Submission {
    pub id: SeqId,
    pub prompt: Vec<u32>,
    /// `None` generates to the end of the context.
    pub max_tokens: Option<u32>,
    pub window: u32,
    pub scope: String,
    /// Higher goes first.
    pub priority: i32,
    pub arrived: Duration,
    /// When it is of no use any more to begin.
    pub deadline: Option<Duration>,
    /// Whether the next tokens may be guessed from the tokens before.
    pub speculate: bool,
}

impl Submission {
    pub fn new(id: SeqId, prompt: Vec<u32>) -> Self {
        Self {
            id,
            prompt,
            max_tokens: None,
            window: u32::MAX,
            scope: String::new(),
            priority: 0,
            arrived: Duration::ZERO,
            deadline: None,
            speculate: false,
        }
    }
}

/// Where a sequence is. Only running ones have blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the queue, ordered by rank.
    Waiting,
    Running,
    /// Gave its place up because its client does not keep up; queues again when the client does.
    Parked,
}

/// Who goes before whom: the lower one. Time of arrival less what priority is worth, then the order of arrival.
pub type Rank = (i128, u64);

#[derive(Debug, Clone)]
pub struct Sequence {
    pub id: SeqId,
    /// Kept for life.
    pub rank: Rank,
    pub place: Place,
    /// The prompt, then the generated tokens.
    pub tokens: Vec<u32>,
    pub prompt_tokens: usize,
    /// How many of `tokens` the blocks hold.
    pub computed: usize,
    /// Generation ends when `tokens` is this long.
    pub limit: usize,
    pub window: u32,
    /// Generated tokens that the client was told of, and those it took.
    pub announced: u32,
    pub acknowledged: u32,
    pub arrived: Duration,
    pub deadline: Option<Duration>,
    /// It had a place before.
    pub begun: bool,
    /// The block table; it may reach beyond `computed`.
    pub blocks: Vec<BlockId>,
    pub speculation: Option<Speculation>,
    scope: Digest,
    /// Stands for the `computed / BLOCK` full blocks.
    digest: Digest,
}

impl Sequence {
    /// `limit`: how many tokens it may grow to.
    pub fn new(submission: Submission, order: u64, limit: usize, scope: Digest) -> Self {
        let Submission { id, prompt, window, priority, arrived, deadline, speculate, .. } = submission;
        Self {
            id,
            rank: (arrived.as_nanos() as i128 - i128::from(priority) * AGING.as_nanos() as i128, order),
            place: Place::Waiting,
            prompt_tokens: prompt.len(),
            tokens: prompt,
            computed: 0,
            limit,
            window,
            announced: 0,
            acknowledged: 0,
            arrived,
            deadline,
            begun: false,
            blocks: Vec::new(),
            speculation: speculate.then(Speculation::default),
            scope,
            digest: scope,
        }
    }

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

    /// Tokens that its client still has room for, and that it may still grow by.
    pub fn room(&self) -> usize {
        let window = self.window.saturating_sub(self.announced.saturating_sub(self.acknowledged));
        self.limit.saturating_sub(self.tokens.len()).min(window as usize)
    }

    /// It ran past its deadline before it began.
    pub fn expired(&self, now: Duration) -> bool {
        !self.begun && self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Blocks it needs to compute all it has now and one token more, those left out that others use anyway.
    pub fn need(&self, pool: &BlockPool) -> usize {
        let all = blocks_for((self.tokens.len() + 1).min(self.limit));
        if all <= pool.available() { all } else { all - pool.shared(self.scope, &self.tokens) }
    }

    /// Takes over what is known of its tokens already.
    pub fn enter(&mut self, pool: &mut BlockPool) {
        let Found { blocks, tokens } = pool.find(self.scope, &self.tokens);
        (self.blocks, self.computed) = (blocks, tokens);
        let full = &self.tokens[..tokens / BLOCK * BLOCK];
        self.digest = pool.digests().chain(self.scope, full).last().unwrap_or(self.scope);
        (self.place, self.begun) = (Place::Running, true);
    }

    /// Digest of the block that holds its next token to compute, where its tokens fill that block.
    pub fn next_digest(&self, pool: &BlockPool) -> Option<Digest> {
        let rest = &self.tokens[self.computed / BLOCK * BLOCK..];
        rest.first_chunk().map(|block| pool.digests().block(self.digest, block))
    }

    /// Takes over blocks that others have computed since. At least one token is left.
    pub fn adopt(&mut self, pool: &mut BlockPool) {
        while self.computed.is_multiple_of(BLOCK)
            && self.remaining() > BLOCK
            && let Some(digest) = self.next_digest(pool)
            && let Some(block) = pool.join(digest)
        {
            let at = self.computed / BLOCK;
            if let Some(own) = self.blocks.get_mut(at) {
                pool.release(&[std::mem::replace(own, block)], None);
            } else {
                self.blocks.push(block);
            }
            (self.computed, self.digest) = (self.computed + BLOCK, digest);
        }
    }

    /// Sees that its blocks reach to `end`. False if there are too few; those it got stay its own.
    pub fn grow(&mut self, end: usize, pool: &mut BlockPool) -> bool {
        while self.blocks.len() < blocks_for(end) {
            let Some(block) = pool.allocate() else {
                return false;
            };
            self.blocks.push(block);
        }
        true
    }

    /// The tokens below `end` are computed. Blocks that are now full become known.
    pub fn advance(&mut self, end: usize, pool: &mut BlockPool) {
        for at in self.computed / BLOCK..end / BLOCK {
            if let Some(tokens) = self.tokens[at * BLOCK..].first_chunk() {
                self.digest = pool.digests().block(self.digest, tokens);
                self.blocks[at] = pool.complete(self.blocks[at], self.digest);
            }
        }
        self.computed = end;
    }

    /// Gives its blocks up; what they hold stays known for as long as there is memory, unless it is `spoiled`.
    pub fn leave(&mut self, pool: &mut BlockPool, spoiled: bool) {
        let beyond = self.blocks.split_off(blocks_for(self.computed).min(self.blocks.len()));
        pool.release(&beyond, None);
        let blocks = std::mem::take(&mut self.blocks);
        let tail = &self.tokens[self.computed / BLOCK * BLOCK..self.computed];
        match spoiled {
            true => pool.discard(&blocks),
            false => pool.release(&blocks, (!tail.is_empty()).then_some((self.digest, tail))),
        }
        (self.computed, self.digest) = (0, self.scope);
    }
}
