//! How the key-value cache lies in memory. A block holds `BLOCK` positions of every layer and head; in it, keys lie
//! transposed (`[key_width][BLOCK]`), so that a vector can hold positions, and values in rows (`[BLOCK][value_width]`).
//! Attention knows a block as a pointer and nothing of who owns it.

use super::isa::{Isa, per_isa};
use super::math::Math;

/// Positions in a block.
pub const BLOCK: usize = 32;

/// Elements of a key or value that share a scale, where there are scales.
pub(crate) const SHARED: usize = 32;

/// Every part of a block starts on a cache line.
const LINE: usize = 64;

/// The largest half; larger values are stored as this, since an infinity would spoil the whole row.
const LARGEST_HALF: f32 = 65504.0;

/// The numbers that a cache holds. Bytes of a key or value of width 128 at one position: F32 512, F16 256, Q8 136.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    #[default]
    F16,
    F32,
    /// Signed bytes; 32 neighbouring elements of a position share a half-precision scale. The scales `[width / 32][BLOCK]`
    /// follow the bytes of their part.
    Q8,
}

impl KvType {
    pub(crate) const fn cell_bytes(self) -> usize {
        match self {
            KvType::F16 => 2,
            KvType::F32 => 4,
            KvType::Q8 => 1,
        }
    }
}

/// The shape of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    kind: KvType,
    layers: usize,
    heads: usize,
    key_width: usize,
    value_width: usize,
    key_bytes: usize,
    head_bytes: usize,
    block_bytes: usize,
}

/// Where keys and values of one layer and head start in every block, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvPlace {
    pub(crate) keys: usize,
    pub(crate) values: usize,
}

impl KvLayout {
    /// None where the bytes of a block would not fit a pointer's range.
    pub fn new(kind: KvType, layers: usize, heads: usize, key_width: usize, value_width: usize) -> Option<KvLayout> {
        let key_bytes = part_bytes(kind, key_width)?;
        let head_bytes = key_bytes.checked_add(part_bytes(kind, value_width)?)?;
        let block_bytes = head_bytes.checked_mul(heads)?.checked_mul(layers)?;
        isize::try_from(block_bytes).ok()?;
        Some(KvLayout { kind, layers, heads, key_width, value_width, key_bytes, head_bytes, block_bytes })
    }

    pub fn kind(&self) -> KvType {
        self.kind
    }

    pub fn layers(&self) -> usize {
        self.layers
    }

    pub fn heads(&self) -> usize {
        self.heads
    }

    pub fn key_width(&self) -> usize {
        self.key_width
    }

    pub fn value_width(&self) -> usize {
        self.value_width
    }

    /// Bytes of a block, a multiple of 64. A block must start at a multiple of 64, too.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// # Panics
    /// If there is no such layer or head.
    pub fn offsets(&self, layer: usize, head: usize) -> KvPlace {
        assert!(layer < self.layers && head < self.heads, "no head {head} of layer {layer} in {self:?}");
        let keys = (layer * self.heads + head) * self.head_bytes;
        KvPlace { keys, values: keys + self.key_bytes }
    }

    /// Puts one position's key and value into slot `slot` of a block.
    ///
    /// # Panics
    /// If the slot is not below `BLOCK`, or a width is not the layout's.
    ///
    /// # Safety
    /// `block` must be valid for writes of `block_bytes()`, `place` must come from this layout, and nobody else may use
    /// that slot of that place meanwhile.
    pub unsafe fn store(&self, isa: Isa, block: *mut u8, place: KvPlace, slot: usize, key: &[f32], value: &[f32]) {
        assert!(slot < BLOCK, "slot {slot} of a block of {BLOCK}");
        assert_eq!((key.len(), value.len()), (self.key_width, self.value_width), "widths of a key and a value");
        // SAFETY: the place lies inside the block, and the slot inside the place.
        let keys = unsafe { block.add(place.keys) };
        // SAFETY: as above.
        let values = unsafe { block.add(place.values) };
        let (cells, across) = (self.kind.cell_bytes(), BLOCK * self.kind.cell_bytes());
        store_part(isa, self.kind, keys, Cells { first: slot * cells, step: across, scale: slot }, key);
        let first = slot * self.value_width * cells;
        store_part(isa, self.kind, values, Cells { first, step: cells, scale: slot }, value);
    }
}

/// Bytes of the keys or values of one head: the numbers, then their scales if they have any.
fn part_bytes(kind: KvType, width: usize) -> Option<usize> {
    let cells = width.checked_mul(BLOCK * kind.cell_bytes())?;
    let scales = match kind {
        KvType::F16 | KvType::F32 => 0,
        KvType::Q8 => width.div_ceil(SHARED) * BLOCK * 2,
    };
    cells.checked_add(scales)?.checked_next_multiple_of(LINE)
}

/// Where the numbers of one position lie in a part: the byte of the first, bytes from one to the next, and the position's
/// place among the scales of 32 elements.
#[derive(Clone, Copy)]
struct Cells {
    first: usize,
    step: usize,
    scale: usize,
}

per_isa! {
    /// Narrows `values` into a part. Private, for its caller vouches for the pointer.
    fn store_part(kind: KvType, part: *mut u8, cells: Cells, values: &[f32]) = store_part_for
}

#[inline(always)]
fn store_part_for<L: Math>(kind: KvType, part: *mut u8, cells: Cells, values: &[f32]) {
    let scales = values.len() * BLOCK;
    for (group, values) in values.chunks(SHARED).enumerate() {
        // SAFETY: `store` vouches for the part, in which every cell of the position and its scales lie.
        unsafe {
            let mut to = part.add(cells.first + group * SHARED * cells.step);
            match kind {
                KvType::F32 => scatter(values.len(), &mut to, cells.step, |at| values[at]),
                KvType::F16 => {
                    let narrow = halves::<L>(values);
                    scatter(values.len(), &mut to, cells.step, |at| narrow[at]);
                }
                KvType::Q8 => {
                    let (scale, narrow) = bytes(values);
                    scatter(values.len(), &mut to, cells.step, |at| narrow[at]);
                    part.add(scales).cast::<u16>().add(group * BLOCK + cells.scale).write(scale);
                }
            }
        }
    }
}

/// Writes `count` cells `step` bytes apart.
///
/// # Safety
/// All of them must be valid for writes and aligned.
#[inline(always)]
unsafe fn scatter<T>(count: usize, to: &mut *mut u8, step: usize, cell: impl Fn(usize) -> T) {
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            to.cast::<T>().write(cell(at));
            *to = to.wrapping_add(step);
        }
    }
}

/// At most 32 values as halves.
#[inline(always)]
fn halves<L: Math>(values: &[f32]) -> [u16; SHARED] {
    let mut wide = [0.0; SHARED];
    for (wide, value) in wide.iter_mut().zip(values) {
        *wide = value.clamp(-LARGEST_HALF, LARGEST_HALF);
    }
    let mut narrow = [0; SHARED];
    for at in (0..SHARED).step_by(L::N) {
        // SAFETY: `per_isa!` runs this only where `L` is available; `at + L::N <= SHARED`.
        unsafe { L::load(wide.as_ptr().add(at)).store_f16(narrow.as_mut_ptr().add(at)) };
    }
    narrow
}

/// At most 32 values as signed bytes, with the half-precision scale that they are multiples of. A value that is not
/// finite cannot be told in bytes: it counts as the largest, or as 0 where it is not a number.
#[inline(always)]
fn bytes(values: &[f32]) -> (u16, [i8; SHARED]) {
    let mut wide = [0.0f32; SHARED];
    for (wide, value) in wide.iter_mut().zip(values) {
        *wide = value.clamp(-127.0 * LARGEST_HALF, 127.0 * LARGEST_HALF);
    }
    let largest = wide.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let scale = half::f16::from_f32(largest / 127.0);
    let step = scale.to_f32();
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    (scale.to_bits(), wide.map(|value| (value * inverse).round_ties_even() as i8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_apart() {
        for kind in [KvType::F16, KvType::F32, KvType::Q8] {
            for (key_width, value_width) in [(64, 128), (20, 75), (1, 1)] {
                let layout = KvLayout::new(kind, 2, 3, key_width, value_width).unwrap();
                let mut ends = 0;
                for (layer, head) in (0..2).flat_map(|layer| (0..3).map(move |head| (layer, head))) {
                    let place = layout.offsets(layer, head);
                    assert_eq!((place.keys, place.keys % 64, place.values % 64), (ends, 0, 0), "{layout:?}");
                    assert!(place.values - place.keys >= key_width * BLOCK * kind.cell_bytes(), "{layout:?}");
                    ends = place.values + (layout.head_bytes - layout.key_bytes);
                }
                assert_eq!((ends, ends % 64), (layout.block_bytes(), 0), "{layout:?}");
            }
        }
    }

    #[test]
    fn blocks_have_known_sizes() {
        for (kind, expected) in [(KvType::F16, 16384), (KvType::F32, 32768), (KvType::Q8, 8704)] {
            assert_eq!(KvLayout::new(kind, 1, 1, 128, 128).unwrap().block_bytes(), expected, "{kind:?}");
        }
    }

    #[test]
    fn too_large_is_none() {
        assert_eq!(KvLayout::new(KvType::F16, usize::MAX / 2, 8, 128, 128), None);
        assert_eq!(KvLayout::new(KvType::F32, 1, 1, usize::MAX / 64, 128), None);
    }

    #[test]
    fn large_values_saturate() {
        let layout = KvLayout::new(KvType::F16, 1, 1, 3, 3).unwrap();
        let mut block = vec![0u16; layout.block_bytes() / 2];
        for isa in Isa::available() {
            let place = layout.offsets(0, 0);
            let row = [1e9, f32::NEG_INFINITY, f32::NAN];
            // SAFETY: the block is as large as the layout says.
            unsafe { layout.store(isa, block.as_mut_ptr().cast(), place, 1, &row, &[1.0, -2.0, 0.5]) };
            let wide = |at: usize| half::f16::from_bits(block[at]).to_f32();
            assert_eq!((wide(1), wide(33)), (65504.0, -65504.0), "{isa:?}");
            assert!(wide(65).is_nan(), "{isa:?}");
            let values = place.values / 2 + 3;
            assert_eq!([wide(values), wide(values + 1), wide(values + 2)], [1.0, -2.0, 0.5], "{isa:?}");
        }
    }
}
