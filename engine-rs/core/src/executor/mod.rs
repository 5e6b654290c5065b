//! The trait between the scheduler, which decides what to compute, and the code that computes it. An executor keeps no
//! sequences: a chunk brings its position and the blocks of the cache that hold what came before it.

mod candle;
mod fused;
mod pool;
pub(crate) mod threads;

use std::sync::Arc;

pub use candle::CandleExecutor;
pub use fused::FusedExecutor;

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kv::KvLayout;
pub use crate::kv::{BLOCK, BlockId, KvType};
use crate::load_watch::LoadWatch;
use crate::model::DecoderSpec;

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

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// Packed weights and fused passes: every decoder there is.
    #[default]
    Fused,
    /// Candle's tensors: plain decoders only, slower; what the other is compared with.
    Candle,
}

/// How to run a model.
#[derive(Debug, Clone, Default)]
pub struct ExecutorOptions {
    /// Threads that compute; 0 for one per processor.
    pub threads: usize,
    /// Longest sequence; at most, and by default, what the model was trained for.
    pub context_length: Option<usize>,
    pub kv: KvType,
    pub backend: Backend,
}

/// Opens the model for computation on this machine's processors.
///
/// # Errors
/// Whatever the file's architecture, keys or tensors are refused for (see `DecoderSpec::read`), and `InvalidRequest` for a
/// context longer than the model's.
pub fn load(gguf: Arc<Gguf>, options: &ExecutorOptions) -> Result<Box<dyn Executor>> {
    load_watched(gguf, options, &LoadWatch::default())
}

/// As `load`; `watch` hears of every tensor, and may end the load with `LoadCancelled`.
pub fn load_watched(gguf: Arc<Gguf>, options: &ExecutorOptions, watch: &LoadWatch) -> Result<Box<dyn Executor>> {
    Ok(match options.backend {
        Backend::Fused => Box::new(FusedExecutor::new(&gguf, options, watch)?),
        Backend::Candle => Box::new(CandleExecutor::new(gguf, options, watch)?),
    })
}

/// The context that the options ask for, checked against the model's.
fn context_length(spec: &DecoderSpec, options: &ExecutorOptions) -> Result<usize> {
    let trained = spec.context_length;
    let length = options.context_length.unwrap_or(trained);
    if length == 0 || length > trained {
        let reason = format!("{length} is outside 1..={trained}, what the model was trained for");
        return Err(Error::InvalidRequest { field: "context_length".to_owned(), reason });
    }
    Ok(length)
}

/// How a block of the cache is laid out for a model.
fn kv_layout(spec: &DecoderSpec, kind: KvType) -> Result<KvLayout> {
    let DecoderSpec { layers, kv_heads, key_width, value_width, .. } = *spec;
    KvLayout::new(kind, layers, kv_heads, key_width, value_width)
        .ok_or_else(|| Error::OutOfMemory { what: "a block of the key-value cache".to_owned(), bytes: usize::MAX })
}
