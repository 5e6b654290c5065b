//! What runs a model: the trait between the scheduler, which decides what to compute, and the code that computes it.

mod candle;
pub(crate) mod threads;

use std::sync::Arc;

pub use candle::CandleExecutor;

use crate::error::Result;
use crate::gguf::Gguf;
pub use crate::kv::KvType;
use crate::load_watch::LoadWatch;

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
    /// Computes all chunks together: one chunk for each sequence, starting where the sequence ends. A sequence is known
    /// from its first chunk on. After an error every sequence is as it was before.
    ///
    /// # Errors
    /// `ContextOverflow`, `InvalidRequest` for an unknown token, `OutOfMemory` where the cache cannot grow.
    fn step(&mut self, batch: &[Chunk<'_>]) -> Result<Logits>;
    /// Forgets the sequence. Unknown sequences are ignored.
    fn release(&mut self, seq: SeqId);
    /// Keeps the first `len` tokens of the sequence.
    fn truncate(&mut self, seq: SeqId, len: usize);
    fn context_length(&self) -> usize;
    fn vocab(&self) -> usize;
    fn live_sequences(&self) -> usize;
    /// Memory that the sequences' keys and values hold.
    fn kv_bytes(&self) -> usize {
        0
    }
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
/// for a context longer than the model's. `watch` hears of every tensor, and may end the load with `LoadCancelled`.
pub fn load(gguf: Arc<Gguf>, options: &ExecutorOptions, watch: &LoadWatch) -> Result<Box<dyn Executor>> {
    Ok(Box::new(CandleExecutor::new(gguf, options, watch)?))
}
