//! The key-value cache: what attention needs of the positions computed so far, in blocks of `BLOCK` positions. `blocks`
//! says which blocks a sequence has, `store` owns their memory, `cache` is what the model on candle tensors writes and
//! reads. No sequence is known here: whoever computes brings a table of blocks.

pub mod blocks;
mod cache;
pub mod digest;
mod store;

pub use cache::KvCache;
pub use store::BlockStore;

pub use crate::kernels::{BLOCK, KvLayout, KvType};

/// Names a block; small numbers, given out lowest first.
pub type BlockId = u32;

/// Blocks that hold `positions` positions.
pub fn blocks_for(positions: usize) -> usize {
    positions.div_ceil(BLOCK)
}
