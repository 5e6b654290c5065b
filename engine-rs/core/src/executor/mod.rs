//! What runs a model: the trait between the scheduler, which decides what to compute, and the code that computes it.

use crate::error::Result;

/// One sequence of tokens whose keys and values the executor keeps.
pub type SeqId = u64;

/// Which rows of a chunk need logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Nothing,
    Last,
    All,
}

/// Consecutive tokens of one sequence, to be computed in one step.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    pub seq: SeqId,
    /// Position of `tokens[0]`: how many tokens of the sequence were computed before.
    pub start: usize,
    pub tokens: &'a [u32],
    pub want: Want,
}

/// Rows of `vocab` numbers each, in the order of the chunks that wanted them.
#[derive(Debug, Clone, Default)]
pub struct Logits {
    pub vocab: usize,
    pub rows: Vec<f32>,
}

pub trait Executor: Send {
    /// Computes all chunks together. After an error a sequence's length is undefined until `truncate` sets it.
    fn step(&mut self, batch: &[Chunk<'_>]) -> Result<Logits>;
    /// Forgets the sequence. Unknown sequences are ignored.
    fn release(&mut self, seq: SeqId);
    /// Keeps the first `len` tokens of the sequence.
    fn truncate(&mut self, seq: SeqId, len: usize);
    fn context_length(&self) -> usize;
    fn vocab(&self) -> usize;
    fn live_sequences(&self) -> usize;
}
