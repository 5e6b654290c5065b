//! Input rows as bytes. Halves round to even. The loops are plain Rust that every instruction set computes alike: a
//! row's bytes are the same on all of them.

use crate::isa::{Lanes, per_isa};

pub(super) const Q8K_COLUMNS: usize = 256;
pub(super) const Q8_COLUMNS: usize = 32;

/// 256 columns of a row: bytes of -127 to 127 times a scale.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct Q8KBlock {
    pub(super) values: [i8; 256],
    /// -32 times the sum of each 16 values: where a product with weights that count from 32 starts.
    pub(super) starts: [i32; 16],
    /// Sums of each 32 values, for weights with a minimum.
    pub(super) sums: [i16; 8],
    pub(super) scale: f32,
}

/// 32 columns of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(super) struct Q8Block {
    pub(super) values: [i8; 32],
    pub(super) scale: f32,
    /// -8 and -128 times the sum of the values: where products with weights that count from 8 or 128 start.
    pub(super) start_8: i32,
    pub(super) start_128: i32,
}

/// The blocks of one row, `pitch` apart.
#[derive(Clone, Copy)]
pub(super) struct Row<T> {
    start: *mut T,
    pitch: usize,
}

impl<T: Copy> Row<T> {
    /// # Safety
    /// All blocks that are then set must lie in valid memory that nobody else uses meanwhile.
    pub(super) unsafe fn new(start: *mut T, pitch: usize) -> Row<T> {
        Row { start, pitch }
    }

    #[inline(always)]
    fn set(&self, block: usize, value: T) {
        // SAFETY: `new`'s caller vouches for the place.
        unsafe { self.start.add(block * self.pitch).write(value) }
    }
}

per_isa! {
    pub(super) fn quantize_q8k(values: &[f32], row: Row<Q8KBlock>) = quantize_q8k_for
}

per_isa! {
    pub(super) fn quantize_q8(values: &[f32], row: Row<Q8Block>) = quantize_q8_for
}

#[inline(always)]
fn quantize_q8k_for<L: Lanes>(values: &[f32], row: Row<Q8KBlock>) {
    for (block, values) in values.as_chunks::<Q8K_COLUMNS>().0.iter().enumerate() {
        let (values, scale) = quantize(values);
        let (mut starts, mut sums) = ([0; 16], [0; 8]);
        for (at, values) in values.as_chunks::<16>().0.iter().enumerate() {
            let sum = sum(values);
            starts[at] = -32 * sum;
            sums[at / 2] += sum as i16;
        }
        row.set(block, Q8KBlock { values, starts, sums, scale });
    }
}

#[inline(always)]
fn quantize_q8_for<L: Lanes>(values: &[f32], row: Row<Q8Block>) {
    for (block, values) in values.as_chunks::<Q8_COLUMNS>().0.iter().enumerate() {
        let (values, scale) = quantize(values);
        let sum = sum(&values);
        row.set(block, Q8Block { values, scale, start_8: -8 * sum, start_128: -128 * sum });
    }
}

/// The largest magnitude becomes 127. A block with an infinity or NaN gets the scale NaN, so that whatever is computed
/// from it shows; one whose largest is too small to divide by becomes zero.
#[inline(always)]
fn quantize<const N: usize>(values: &[f32; N]) -> ([i8; N], f32) {
    const SMALLEST: f32 = 1e-30;
    // As integers, magnitudes order like the floats, with infinities and NaNs above all.
    let mut peak = 0;
    for value in values {
        peak = peak.max(value.to_bits() & 0x7fff_ffff);
    }
    let peak = f32::from_bits(peak);
    let (scale, inverse) = match peak {
        peak if !peak.is_finite() => (f32::NAN, 0.0),
        peak if peak < SMALLEST => (0.0, 0.0),
        peak => (peak / 127.0, 127.0 / peak),
    };
    let mut bytes = [0; N];
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = round(value * inverse);
    }
    (bytes, scale)
}

/// The nearest integer of a value of at most 127; anything for others.
#[inline(always)]
fn round(value: f32) -> i8 {
    // 1.5 * 2^23: adding it rounds to an integer, which then sits in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i8
}

#[inline(always)]
fn sum<const N: usize>(values: &[i8; N]) -> i32 {
    let mut sum = 0_i32;
    for value in values {
        sum = sum.wrapping_add(i32::from(*value));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    fn q8(isa: Isa, values: &[f32]) -> Vec<Q8Block> {
        let empty = Q8Block { values: [0; 32], scale: 0.0, start_8: 0, start_128: 0 };
        let mut blocks = vec![empty; values.len() / Q8_COLUMNS];
        // SAFETY: a place for each block.
        quantize_q8(isa, values, unsafe { Row::new(blocks.as_mut_ptr(), 1) });
        blocks
    }

    fn q8k(isa: Isa, values: &[f32]) -> Vec<Q8KBlock> {
        let empty = Q8KBlock { values: [0; 256], starts: [0; 16], sums: [0; 8], scale: 0.0 };
        let mut blocks = vec![empty; values.len() / Q8K_COLUMNS];
        // SAFETY: a place for each block.
        quantize_q8k(isa, values, unsafe { Row::new(blocks.as_mut_ptr(), 1) });
        blocks
    }

    #[test]
    fn bytes_are_the_same_everywhere() {
        let values = Noise::new(1).floats(4096);
        for isa in Isa::available() {
            assert_eq!(q8(isa, &values), q8(Isa::PORTABLE, &values), "{isa:?}");
            assert_eq!(q8k(isa, &values), q8k(Isa::PORTABLE, &values), "{isa:?}");
        }
    }

    #[test]
    fn halves_round_to_even() {
        let mut values = [0.0; 32];
        values[..6].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -126.5]);
        let block = q8(Isa::best(), &values)[0];
        assert_eq!(block.values[..6], [127, 0, 2, 2, 0, -126]);
        assert_eq!((block.scale, block.start_8, block.start_128), (1.0, -8 * 5, -128 * 5));
    }

    #[test]
    fn sums_belong_to_their_columns() {
        let mut values = [0.0; 256];
        (values[0], values[17], values[255]) = (127.0, -3.0, 5.0);
        let block = q8k(Isa::best(), &values)[0];
        assert_eq!((block.starts[0], block.starts[1], block.starts[15]), (-32 * 127, 32 * 3, -32 * 5));
        assert_eq!(block.sums, [124, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn odd_numbers_show() {
        for isa in Isa::available() {
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = [1.0; 64];
                values[40] = odd;
                let blocks = q8(isa, &values);
                assert!(blocks[0].scale == 1.0 / 127.0 && blocks[1].scale.is_nan(), "{isa:?} {odd}");
            }
            assert_eq!(q8(isa, &[1e-38; 32])[0].scale, 0.0);
        }
    }
}
