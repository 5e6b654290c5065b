//! The memory of the cache's blocks: allocated when a block is first used, aligned for vector loads, never moved. A block
//! given back by a sequence keeps its memory for the next one, so memory follows the most blocks ever used at a time.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use super::BlockId;
use crate::error::{Error, Result};

/// Blocks begin at multiples of this: a line of the processor's cache, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct BlockStore {
    /// `None` where the size of a block cannot be computed; then no block can be had.
    layout: Option<Layout>,
    blocks: Vec<Option<NonNull<u8>>>,
    used: usize,
}

// SAFETY: the store owns its memory alone; shared access only reads, or writes through pointers whose user promises that
// nobody else touches the place.
unsafe impl Send for BlockStore {}
// SAFETY: as above.
unsafe impl Sync for BlockStore {}

impl BlockStore {
    /// `block_bytes` of `None` (too large a number) makes every `reserve` fail.
    pub fn new(block_bytes: Option<usize>) -> BlockStore {
        let padded = block_bytes.map(|bytes| bytes.max(1)).and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT));
        let layout = padded.and_then(|bytes| Layout::from_size_align(bytes, ALIGNMENT).ok());
        BlockStore { layout, blocks: Vec::new(), used: 0 }
    }

    pub fn block_bytes(&self) -> usize {
        self.layout.map_or(usize::MAX, |layout| layout.size())
    }

    /// Sees that every block has memory. A new block holds zeros.
    ///
    /// # Errors
    /// `OutOfMemory`; blocks that got theirs before the failure keep it, as any block does.
    pub fn reserve(&mut self, ids: impl Iterator<Item = BlockId>) -> Result<()> {
        for id in ids {
            let at = id as usize;
            if self.blocks.len() <= at {
                let missing = at + 1 - self.blocks.len();
                self.blocks.try_reserve(missing).map_err(|_| self.out_of_memory())?;
                self.blocks.resize(at + 1, None);
            }
            if self.blocks[at].is_none() {
                self.blocks[at] = Some(self.allocate()?);
                self.used += 1;
            }
        }
        Ok(())
    }

    fn allocate(&self) -> Result<NonNull<u8>> {
        let layout = self.layout.ok_or_else(|| self.out_of_memory())?;
        // SAFETY: the size is not zero: see `new`.
        let start = unsafe { alloc_zeroed(layout) };
        NonNull::new(start).ok_or_else(|| self.out_of_memory())
    }

    fn out_of_memory(&self) -> Error {
        Error::OutOfMemory { what: "a block of the key-value cache".to_owned(), bytes: self.block_bytes() }
    }

    /// A block's start. Null for one that was never reserved.
    pub fn pointer(&self, id: BlockId) -> *mut u8 {
        let block = self.blocks.get(id as usize).copied().flatten();
        block.map_or(std::ptr::null_mut(), NonNull::as_ptr)
    }

    /// A block's bytes; none for one that was never reserved.
    pub fn block(&self, id: BlockId) -> &[u8] {
        let start = self.pointer(id);
        if start.is_null() {
            return &[];
        }
        // SAFETY: the block has `block_bytes` initialized bytes until the store is dropped.
        unsafe { std::slice::from_raw_parts(start, self.block_bytes()) }
    }

    /// A block's bytes; none for one that was never reserved.
    pub fn block_mut(&mut self, id: BlockId) -> &mut [u8] {
        let start = self.pointer(id);
        if start.is_null() {
            return &mut [];
        }
        // SAFETY: as in `block`, and `&mut self` keeps all others away.
        unsafe { std::slice::from_raw_parts_mut(start, self.block_bytes()) }
    }

    /// Memory of all blocks ever used.
    pub fn bytes(&self) -> usize {
        self.used.saturating_mul(self.layout.map_or(0, |layout| layout.size()))
    }
}

impl Drop for BlockStore {
    fn drop(&mut self) {
        let Some(layout) = self.layout else {
            return;
        };
        for block in self.blocks.drain(..).flatten() {
            // SAFETY: allocated in `allocate` with this layout, and freed only here.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_apart() {
        let mut store = BlockStore::new(Some(100));
        store.reserve([3, 0, 3].into_iter()).unwrap();
        assert_eq!((store.block_bytes(), store.bytes()), (128, 256));
        store.block_mut(3).fill(7);
        assert!(store.block(0).iter().all(|byte| *byte == 0) && store.block(3).iter().all(|byte| *byte == 7));
        assert!([0, 3].iter().all(|id| (store.pointer(*id) as usize).is_multiple_of(ALIGNMENT)));
    }

    #[test]
    fn unreserved_blocks_are_empty() {
        let mut store = BlockStore::new(Some(64));
        store.reserve([2].into_iter()).unwrap();
        assert!(store.block(1).is_empty() && store.block(9).is_empty() && store.block_mut(1).is_empty());
        assert!(store.pointer(1).is_null());
    }

    #[test]
    fn absurd_blocks_are_errors() {
        for bytes in [None, Some(usize::MAX), Some(isize::MAX as usize - 127)] {
            let mut store = BlockStore::new(bytes);
            assert!(matches!(store.reserve([0].into_iter()), Err(Error::OutOfMemory { .. })), "{bytes:?}");
            assert_eq!(store.bytes(), 0);
        }
    }
}
