//! A cache of pages of 32 positions, allocated as a sequence grows: nothing is ever moved or copied, and a sequence never
//! holds more than a page beyond its need. A page stores, for each layer and head, its keys and then its values.

use std::collections::HashMap;

use half::slice::HalfFloatSliceExt;

use super::{KvShape, KvStore, KvType};
use crate::error::{Error, Result};
use crate::executor::SeqId;
use crate::kernels::{PAGE, Page};

#[derive(Debug)]
enum Storage {
    F16(Vec<half::f16>),
    F32(Vec<f32>),
}

#[derive(Debug, Default)]
struct Sequence {
    pages: Vec<Storage>,
    length: usize,
}

/// See the module.
#[derive(Debug)]
pub struct PagedKv {
    shape: KvShape,
    kind: KvType,
    sequences: HashMap<SeqId, Sequence>,
}

impl PagedKv {
    pub fn new(shape: KvShape, kind: KvType) -> PagedKv {
        PagedKv { shape, kind, sequences: HashMap::new() }
    }

    fn page_elements(&self) -> usize {
        self.shape.layers * self.shape.heads * PAGE * (self.shape.key_width + self.shape.value_width)
    }

    fn page_bytes(&self) -> usize {
        self.page_elements() * if self.kind == KvType::F16 { 2 } else { 4 }
    }

    fn new_page(&self, seq: SeqId) -> Result<Storage> {
        let elements = self.page_elements();
        let page = match self.kind {
            KvType::F16 => zeroed(elements, half::f16::ZERO).map(Storage::F16),
            KvType::F32 => zeroed(elements, 0.0).map(Storage::F32),
        };
        page.ok_or_else(|| Error::OutOfMemory {
            what: format!("a page of the key-value cache for sequence {seq}"),
            bytes: self.page_bytes(),
        })
    }

    /// Where the keys of a layer and head start in a page, and where its values do.
    fn offsets(&self, layer: usize, head: usize) -> (usize, usize) {
        let at = (layer * self.shape.heads + head) * PAGE * (self.shape.key_width + self.shape.value_width);
        (at, at + PAGE * self.shape.key_width)
    }

    fn page_of<'a>(&self, storage: &'a Storage, layer: usize, head: usize) -> Page<'a> {
        let (keys, values) = self.offsets(layer, head);
        let (keys, values) = (keys..values, values..values + PAGE * self.shape.value_width);
        match storage {
            Storage::F16(page) => Page::F16 { keys: bits(&page[keys]), values: bits(&page[values]) },
            Storage::F32(page) => Page::F32 { keys: &page[keys], values: &page[values] },
        }
    }
}

fn bits(halves: &[half::f16]) -> &[u16] {
    use half::slice::HalfFloatSliceExt;
    halves.reinterpret_cast()
}

fn zeroed<T: Clone>(elements: usize, zero: T) -> Option<Vec<T>> {
    let mut page = Vec::new();
    page.try_reserve_exact(elements).ok()?;
    page.resize(elements, zero);
    Some(page)
}

impl Storage {
    fn write_value(&mut self, at: usize, row: &[f32]) {
        match self {
            Storage::F16(page) => page[at..at + row.len()].convert_from_f32_slice(row),
            Storage::F32(page) => page[at..at + row.len()].copy_from_slice(row),
        }
    }

    /// A key's elements lie `PAGE` apart: see `Page`.
    fn write_key(&mut self, at: usize, key: &[f32]) {
        match self {
            Storage::F16(page) => {
                let places = page[at..].iter_mut().step_by(PAGE);
                places.zip(key).for_each(|(place, value)| *place = half::f16::from_f32(*value));
            }
            Storage::F32(page) => {
                let places = page[at..].iter_mut().step_by(PAGE);
                places.zip(key).for_each(|(place, value)| *place = *value);
            }
        }
    }
}

impl KvStore for PagedKv {
    fn length(&self, seq: SeqId) -> usize {
        self.sequences.get(&seq).map_or(0, |sequence| sequence.length)
    }

    fn reserve(&mut self, seq: SeqId, length: usize) -> Result<()> {
        let held = self.sequences.get(&seq).map_or(0, |sequence| sequence.pages.len());
        let missing = length.div_ceil(PAGE).saturating_sub(held);
        let pages = (0..missing).map(|_| self.new_page(seq)).collect::<Result<Vec<Storage>>>()?;
        self.sequences.entry(seq).or_default().pages.extend(pages);
        Ok(())
    }

    fn write(&mut self, seq: SeqId, layer: usize, start: usize, keys: &[f32], values: &[f32]) {
        let KvShape { heads, key_width, value_width, .. } = self.shape;
        let offsets: Vec<(usize, usize)> = (0..heads).map(|head| self.offsets(layer, head)).collect();
        let Some(sequence) = self.sequences.get_mut(&seq) else {
            return;
        };
        let rows = keys.chunks_exact(heads * key_width).zip(values.chunks_exact(heads * value_width));
        for (position, (keys, values)) in (start..).zip(rows) {
            let (page, row) = (&mut sequence.pages[position / PAGE], position % PAGE);
            let heads = keys.chunks_exact(key_width).zip(values.chunks_exact(value_width));
            for ((keys, values), (keys_at, values_at)) in heads.zip(&offsets) {
                page.write_key(keys_at + row, keys);
                page.write_value(values_at + row * value_width, values);
            }
        }
    }

    fn commit(&mut self, seq: SeqId, length: usize) {
        if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.length = length;
        }
    }

    fn pages(&self, seq: SeqId, layer: usize, head: usize, length: usize) -> Vec<Page<'_>> {
        let Some(sequence) = self.sequences.get(&seq) else {
            return Vec::new();
        };
        let pages = sequence.pages.iter().take(length.div_ceil(PAGE));
        pages.map(|storage| self.page_of(storage, layer, head)).collect()
    }

    fn truncate(&mut self, seq: SeqId, length: usize) {
        if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.length = sequence.length.min(length);
            sequence.pages.truncate(sequence.length.div_ceil(PAGE));
        }
    }

    fn release(&mut self, seq: SeqId) {
        self.sequences.remove(&seq);
    }

    fn live_sequences(&self) -> usize {
        self.sequences.len()
    }

    fn bytes(&self) -> usize {
        self.sequences.values().map(|sequence| sequence.pages.len() * self.page_bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: KvShape = KvShape { layers: 2, heads: 3, key_width: 4, value_width: 2 };

    fn filled(kind: KvType, length: usize) -> PagedKv {
        let mut kv = PagedKv::new(SHAPE, kind);
        kv.reserve(7, length).unwrap();
        for layer in 0..SHAPE.layers {
            for position in 0..length {
                let keys: Vec<f32> = (0..12).map(|at| (layer * 100 + position + at) as f32).collect();
                let values: Vec<f32> = (0..6).map(|at| -((layer * 100 + position + at) as f32)).collect();
                kv.write(7, layer, position, &keys, &values);
            }
        }
        kv.commit(7, length);
        kv
    }

    #[test]
    fn rows_come_back_where_they_were_written() {
        let kv = filled(KvType::F32, 70);
        let pages = kv.pages(7, 1, 2, 70);
        assert_eq!(pages.len(), 3);
        let Page::F32 { keys, values } = pages[1] else { panic!("stored as f32") };
        // Layer 1, position 33, head 2: elements 8.. of the keys' row and 4.. of the values'.
        assert_eq!([keys[1], keys[33], keys[65], keys[97]], [141.0, 142.0, 143.0, 144.0]);
        assert_eq!(values[2..4], [-137.0, -138.0]);
    }

    #[test]
    fn halves_hold_small_integers() {
        let kv = filled(KvType::F16, 40);
        let Page::F16 { keys, .. } = kv.pages(7, 0, 0, 40)[1] else { panic!("stored as f16") };
        assert_eq!(half::f16::from_bits(keys[0]).to_f32(), 32.0);
    }

    #[test]
    fn memory_follows_length() {
        let mut kv = filled(KvType::F16, 65);
        let page = 2 * 3 * 32 * 6 * 2;
        assert_eq!((kv.bytes(), kv.length(7), kv.live_sequences()), (3 * page, 65, 1));
        kv.truncate(7, 64);
        assert_eq!((kv.bytes(), kv.length(7)), (2 * page, 64));
        kv.truncate(7, 1000);
        assert_eq!(kv.length(7), 64);
        kv.release(7);
        kv.release(7);
        assert_eq!((kv.bytes(), kv.length(7), kv.live_sequences()), (0, 0, 0));
    }

    #[test]
    fn absurd_reservations_are_errors() {
        let shape = KvShape { layers: 1 << 30, heads: 1 << 10, key_width: 1 << 10, value_width: 1 };
        let mut kv = PagedKv::new(shape, KvType::F32);
        assert!(matches!(kv.reserve(1, 1), Err(Error::OutOfMemory { .. })));
        assert_eq!(kv.live_sequences(), 0);
    }
}
