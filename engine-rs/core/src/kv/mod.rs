//! The key-value cache: for each sequence, what attention needs of the positions computed so far. The trait is what the
//! model asks of a cache; `paged` is the one there is.

mod paged;

pub use paged::PagedKv;

use crate::error::Result;
use crate::executor::SeqId;
use crate::kernels::Page;

/// How cached numbers are stored. `F16` halves memory and traffic; `F32` is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    #[default]
    F16,
    F32,
}

/// What one position of one sequence takes: fixed by the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    pub layers: usize,
    pub heads: usize,
    pub key_width: usize,
    pub value_width: usize,
}

pub trait KvStore: Send + Sync {
    /// Positions of the sequence that count; 0 for an unknown one.
    fn length(&self, seq: SeqId) -> usize;

    /// Makes room for positions below `length`, of which those not yet written hold nothing of meaning.
    ///
    /// # Errors
    /// `OutOfMemory`; then the sequence is as before.
    fn reserve(&mut self, seq: SeqId, length: usize) -> Result<()>;

    /// Stores `[rows, heads, width]` keys and values for positions `start..`, which must have been reserved.
    fn write(&mut self, seq: SeqId, layer: usize, start: usize, keys: &[f32], values: &[f32]);

    /// The positions below `length` are now all written.
    fn commit(&mut self, seq: SeqId, length: usize);

    /// The pages that hold positions below `length`, for one layer and head.
    fn pages(&self, seq: SeqId, layer: usize, head: usize, length: usize) -> Vec<Page<'_>>;

    /// Keeps the first `length` positions and frees the pages behind them.
    fn truncate(&mut self, seq: SeqId, length: usize);

    /// Forgets the sequence. Unknown sequences are ignored.
    fn release(&mut self, seq: SeqId);

    fn live_sequences(&self) -> usize;

    fn bytes(&self) -> usize;
}
