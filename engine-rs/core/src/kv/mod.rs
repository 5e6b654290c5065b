//! The key-value cache: what attention needs of the positions computed so far, in blocks of `BLOCK` positions. `blocks`
//! says which blocks a sequence has, `store` owns their memory, `cache` is what the model on candle tensors writes and
//! reads. No sequence is known here: whoever computes brings a table of blocks.

mod cache;
mod store;

pub use cache::KvCache;
pub use store::BlockStore;

pub use crate::kernels::PAGE as BLOCK;

/// Names a block; small numbers, given out lowest first.
pub type BlockId = u32;

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

/// Blocks that hold `positions` positions.
pub fn blocks_for(positions: usize) -> usize {
    positions.div_ceil(BLOCK)
}
