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
