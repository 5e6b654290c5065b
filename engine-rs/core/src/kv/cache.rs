//! The cache as the model on candle tensors uses it: rows of keys and values go in, and attention over them comes out.

use quiver_kernels::attention::{AttendScratch, Cached, Head, Queries, attend_rows};
use quiver_kernels::{Isa, KvLayout, Output};

use super::{BLOCK, BlockId, BlockStore};
use crate::error::Result;

/// See the module.
#[derive(Debug)]
pub struct KvCache {
    layout: KvLayout,
    store: BlockStore,
}

impl KvCache {
    pub fn new(layout: KvLayout) -> KvCache {
        KvCache { store: BlockStore::new(Some(layout.block_bytes())), layout }
    }

    /// Sees that the blocks have memory.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn reserve(&mut self, blocks: &[BlockId]) -> Result<()> {
        self.store.reserve(blocks.iter().copied())
    }

    /// Stores `[rows, heads, width]` keys and values for positions `start..` of the sequence with these blocks, which
    /// must have been reserved.
    pub fn write(&mut self, blocks: &[BlockId], layer: usize, start: usize, keys: &[f32], values: &[f32]) {
        let (heads, key_width, value_width) = (self.layout.heads(), self.layout.key_width(), self.layout.value_width());
        let rows = keys.chunks_exact(heads * key_width).zip(values.chunks_exact(heads * value_width));
        let whole = self.store.block_bytes();
        for (position, (keys, values)) in (start..).zip(rows) {
            let block = self.store.block_mut(blocks[position / BLOCK]);
            assert_eq!(block.len(), whole, "a block that was not reserved");
            let heads = keys.chunks_exact(key_width).zip(values.chunks_exact(value_width));
            for (head, (key, value)) in heads.enumerate() {
                let place = self.layout.offsets(layer, head);
                // SAFETY: the block is whole and this call's alone.
                unsafe {
                    self.layout.store(Isa::best(), block.as_mut_ptr(), place, position % BLOCK, key, value);
                }
            }
        }
    }

    /// Attention of query rows `[rows, group, key_width]` at positions from `first` on over the cache's head `at`, as
    /// `[rows, group, value_width]`.
    pub fn attend(
        &self,
        blocks: &[BlockId],
        (layer, at): (usize, usize),
        head: &Head,
        first: usize,
        queries: &[f32],
        scratch: &mut AttendScratch,
    ) -> Vec<f32> {
        let (wide, narrow) = (head.group * head.key_width, head.group * head.value_width);
        let rows = queries.len() / wide;
        let blocks: Vec<*const u8> = blocks.iter().map(|id| self.store.block(*id).as_ptr()).collect();
        let cached = Cached { layout: &self.layout, place: self.layout.offsets(layer, at), blocks: &blocks };
        let mut out = vec![0.0; rows * narrow];
        let queries = Queries { start: queries.as_ptr(), stride: wide };
        // SAFETY: queries and output hold the rows, and every block was written up to the last of them.
        unsafe {
            let out = Output::new(out.as_mut_ptr(), narrow);
            attend_rows(Isa::best(), head, first, rows, queries, &cached, scratch, out);
        }
        out
    }

    pub fn block_bytes(&self) -> usize {
        self.store.block_bytes()
    }

    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }
}
