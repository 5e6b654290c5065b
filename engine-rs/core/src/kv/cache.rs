//! The cache as the model on candle tensors uses it: rows of keys and values go in, pages for `kernels::attend` come
//! out. A block stores, for each layer and head, its keys `[key_width, BLOCK]` and then its values `[BLOCK, value_width]`.

use half::slice::HalfFloatSliceExt;

use super::{BLOCK, BlockId, BlockStore, KvShape, KvType, blocks_for};
use crate::error::Result;
use crate::kernels::Page;

/// See the module.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    kind: KvType,
    store: BlockStore,
}

impl KvCache {
    pub fn new(shape: KvShape, kind: KvType) -> KvCache {
        KvCache { store: BlockStore::new(block_bytes(shape, kind)), shape, kind }
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
        let KvShape { heads, key_width, value_width, .. } = self.shape;
        let rows = keys.chunks_exact(heads * key_width).zip(values.chunks_exact(heads * value_width));
        for (position, (keys, values)) in (start..).zip(rows) {
            let heads = keys.chunks_exact(key_width).zip(values.chunks_exact(value_width));
            for (head, (key, value)) in heads.enumerate() {
                let (at, slot) = (self.offset(layer, head), position % BLOCK);
                let block = self.store.block_mut(blocks[position / BLOCK]);
                match self.kind {
                    KvType::F16 => write_halves(halves_mut(block), at, slot, key, value),
                    KvType::F32 => write_floats(floats_mut(block), at, slot, key, value),
                }
            }
        }
    }

    /// The pages that hold positions below `length`, for one layer and head.
    pub fn pages(&self, blocks: &[BlockId], layer: usize, head: usize, length: usize) -> Vec<Page<'_>> {
        let blocks = blocks.iter().take(blocks_for(length));
        blocks.map(|id| self.page(*id, layer, head)).collect()
    }

    fn page(&self, id: BlockId, layer: usize, head: usize) -> Page<'_> {
        let at = self.offset(layer, head);
        let values = at + BLOCK * self.shape.key_width;
        let (keys, values) = (at..values, values..values + BLOCK * self.shape.value_width);
        let block = self.store.block(id);
        match self.kind {
            KvType::F16 => Page::F16 { keys: &halves(block)[keys], values: &halves(block)[values] },
            KvType::F32 => Page::F32 { keys: &floats(block)[keys], values: &floats(block)[values] },
        }
    }

    /// Elements before those of a layer and head.
    fn offset(&self, layer: usize, head: usize) -> usize {
        (layer * self.shape.heads + head) * BLOCK * (self.shape.key_width + self.shape.value_width)
    }

    pub fn block_bytes(&self) -> usize {
        self.store.block_bytes()
    }

    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }
}

fn block_bytes(shape: KvShape, kind: KvType) -> Option<usize> {
    let width = shape.key_width.checked_add(shape.value_width)?;
    let elements = shape.layers.checked_mul(shape.heads)?.checked_mul(BLOCK)?.checked_mul(width)?;
    elements.checked_mul(if kind == KvType::F16 { 2 } else { 4 })
}

/// A key's elements lie `BLOCK` apart: see `Page`.
fn write_halves(block: &mut [u16], at: usize, slot: usize, key: &[f32], value: &[f32]) {
    let places = block[at + slot..].iter_mut().step_by(BLOCK);
    places.zip(key).for_each(|(place, value)| *place = half::f16::from_f32(*value).to_bits());
    let start = at + BLOCK * key.len() + slot * value.len();
    let place: &mut [half::f16] =
        half::slice::HalfBitsSliceExt::reinterpret_cast_mut(&mut block[start..][..value.len()]);
    place.convert_from_f32_slice(value);
}

fn write_floats(block: &mut [f32], at: usize, slot: usize, key: &[f32], value: &[f32]) {
    let places = block[at + slot..].iter_mut().step_by(BLOCK);
    places.zip(key).for_each(|(place, value)| *place = *value);
    block[at + BLOCK * key.len() + slot * value.len()..][..value.len()].copy_from_slice(value);
}

// SAFETY of the four below: blocks are aligned to 64 bytes, and every bit pattern is a number of either type.

fn halves(block: &[u8]) -> &[u16] {
    // SAFETY: see above.
    unsafe { block.align_to().1 }
}

fn floats(block: &[u8]) -> &[f32] {
    // SAFETY: see above.
    unsafe { block.align_to().1 }
}

fn halves_mut(block: &mut [u8]) -> &mut [u16] {
    // SAFETY: see above.
    unsafe { block.align_to_mut().1 }
}

fn floats_mut(block: &mut [u8]) -> &mut [f32] {
    // SAFETY: see above.
    unsafe { block.align_to_mut().1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const SHAPE: KvShape = KvShape { layers: 2, heads: 3, key_width: 4, value_width: 2 };
    const BLOCKS: [BlockId; 3] = [5, 0, 2];

    fn filled(kind: KvType, length: usize) -> KvCache {
        let mut kv = KvCache::new(SHAPE, kind);
        kv.reserve(&BLOCKS).unwrap();
        for layer in 0..SHAPE.layers {
            for position in 0..length {
                let keys: Vec<f32> = (0..12).map(|at| (layer * 100 + position + at) as f32).collect();
                let values: Vec<f32> = (0..6).map(|at| -((layer * 100 + position + at) as f32)).collect();
                kv.write(&BLOCKS, layer, position, &keys, &values);
            }
        }
        kv
    }

    #[test]
    fn rows_come_back_where_they_were_written() {
        let kv = filled(KvType::F32, 70);
        let pages = kv.pages(&BLOCKS, 1, 2, 70);
        assert_eq!(pages.len(), 3);
        let Page::F32 { keys, values } = pages[1] else { panic!("stored as f32") };
        // Layer 1, position 33, head 2: elements 8.. of the keys' row and 4.. of the values'.
        assert_eq!([keys[1], keys[33], keys[65], keys[97]], [141.0, 142.0, 143.0, 144.0]);
        assert_eq!(values[2..4], [-137.0, -138.0]);
        assert_eq!(kv.pages(&BLOCKS, 1, 2, 64).len(), 2);
    }

    #[test]
    fn halves_hold_small_integers() {
        let kv = filled(KvType::F16, 40);
        let Page::F16 { keys, values } = kv.pages(&BLOCKS, 0, 0, 40)[1] else { panic!("stored as f16") };
        let wide = |bits: u16| half::f16::from_bits(bits).to_f32();
        assert_eq!([wide(keys[0]), wide(keys[33]), wide(values[2])], [32.0, 34.0, -33.0]);
    }

    #[test]
    fn memory_follows_used_blocks() {
        let kv = filled(KvType::F16, 65);
        assert_eq!(kv.block_bytes(), 2 * 3 * 32 * 6 * 2);
        assert_eq!(kv.bytes(), 3 * kv.block_bytes());
    }

    #[test]
    fn absurd_shapes_are_errors() {
        let shape = KvShape { layers: 1 << 30, heads: 1 << 20, key_width: 1 << 10, value_width: 1 };
        let mut kv = KvCache::new(shape, KvType::F32);
        assert!(matches!(kv.reserve(&[0]), Err(Error::OutOfMemory { .. })));
    }
}
