//! The trait between the scheduler, which decides what to compute, and the code that computes it. An executor keeps no
//! sequences: a chunk brings its position and the blocks of the cache that hold what came before it.

mod candle;
mod pool;
pub(crate) mod threads;

use std::sync::Arc;

pub use candle::CandleExecutor;

use crate::error::Result;
use crate::gguf::Gguf;
pub use crate::kv::{BLOCK, BlockId, KvType};

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
    /// Position of `tokens[0]`: how many tokens of the sequence were computed before.
    pub start: usize,
    pub tokens: &'a [u32],
    pub want: Want,
    /// `blocks[i]` holds positions `BLOCK * i..`; together they cover `start + tokens.len()`. Positions from `start` on
    /// are written, those before only read; no other chunk of the step may hold a block that is written.
    pub blocks: &'a [BlockId],
}

/// Rows of `vocab` numbers each, in the order of the chunks that wanted them.
#[derive(Debug, Clone, Default)]
pub struct Logits {
    pub vocab: usize,
    pub rows: Vec<f32>,
}

pub trait Executor: Send {
    /// Computes all chunks together. After an error nothing of the step counts: positions from each chunk's start on may
    /// hold anything, those before are untouched.
    ///
    /// # Errors
    /// `ContextOverflow`, `InvalidRequest` for an unknown token, `OutOfMemory` where a block used for the first time gets
    /// no memory, `Internal` for blocks that do not cover a chunk or are written twice.
    fn step(&mut self, batch: &[Chunk<'_>]) -> Result<Logits>;
    fn context_length(&self) -> usize;
    fn vocab(&self) -> usize;
    /// Memory that one block takes.
    fn block_bytes(&self) -> usize;
    /// Memory of all blocks ever used.
    fn kv_bytes(&self) -> usize;
}

/// How to run a model.
#[derive(Debug, Clone, Default)]
pub struct ExecutorOptions {
    /// Threads that compute; 0 for one per processor.
    pub threads: usize,
    /// Longest sequence; at most, and by default, what the model was trained for.
    pub context_length: Option<usize>,
    pub kv: KvType,
}

/// Opens the model for computation on this machine's processors.
///
/// # Errors
/// Whatever the file's architecture, keys or tensors are refused for (see `model::Decoder::open`), and `InvalidRequest`
/// for a context longer than the model's.
pub fn load(gguf: Arc<Gguf>, options: &ExecutorOptions) -> Result<Box<dyn Executor>> {
    Ok(Box::new(CandleExecutor::new(gguf, options)?))
}
