//! Q8_0 and Q4_0: 32 columns share a scale. A strip holds the bytes of all its blocks (`[block][vector][row][4]`), then
//! all their scales (`[block][row]`, f16). Every product adds, block after block, the exact integer sum times the weights'
//! scale times the input's scale to the total.

use super::family::{Family, Strips, Total, Unpacked};
use super::inputs::{Format, Inputs};
use super::machine::{Kernel, Machine};
use super::quantize::Q8Block;
use std::marker::PhantomData;

/// A type of 32 columns with one scale.
pub(super) trait BlockKind: Copy + 'static {
    /// Bytes of a block in the file: a scale, then the values.
    const BLOCK: usize;
    /// Values are nibbles that count from 8, or else signed bytes.
    const NIBBLES: bool;
}

#[derive(Clone, Copy)]
pub(super) struct Q80;
#[derive(Clone, Copy)]
pub(super) struct Q40;

impl BlockKind for Q80 {
    const BLOCK: usize = 34;
    const NIBBLES: bool = false;
}

impl BlockKind for Q40 {
    const BLOCK: usize = 18;
    const NIBBLES: bool = true;
}

const COLUMNS: usize = 32;
/// Bytes of a strip's scales for one block.
const SCALES: usize = 32;

#[derive(Clone, Copy)]
pub(super) struct Blocks<T>(PhantomData<T>);

impl<T: BlockKind> Blocks<T> {
    /// Bytes of a strip's values of one block.
    const VALUES: usize = if T::NIBBLES { 256 } else { 512 };

    /// The eight vectors of a block, as `dot` or `dot_signed` wants them.
    #[inline(always)]
    unsafe fn values<M: Machine>(block: *const u8) -> [M::Bytes; 8] {
        // SAFETY: within the block; the machine is the caller's.
        unsafe {
            let mut values = [M::bytes(block); 8];
            for (at, value) in values.iter_mut().enumerate() {
                *value = if !T::NIBBLES {
                    M::signed(M::bytes(block.add(at * 64)))
                } else if at % 2 == 0 {
                    M::mask(M::bytes(block.add(at / 2 * 64)), 15)
                } else {
                    M::mask(M::right::<4>(M::bytes(block.add(at / 2 * 64))), 15)
                };
            }
            values
        }
    }

    #[inline(always)]
    unsafe fn start<M: Machine>(input: *const Q8Block) -> M::Ints {
        // SAFETY: the caller's.
        unsafe { if T::NIBBLES { M::splat_int((*input).start_8) } else { M::signed_start((*input).start_128) } }
    }

    #[inline(always)]
    unsafe fn dot<M: Machine>(sum: M::Ints, bytes: M::Bytes, with: *const i8) -> M::Ints {
        // SAFETY: the caller's.
        unsafe { if T::NIBBLES { M::dot(sum, bytes, with) } else { M::dot_signed(sum, bytes, with) } }
    }

    /// `total + sum * weight scale * input scale`.
    #[inline(always)]
    unsafe fn scaled<M: Machine>(total: M::Floats, sum: M::Ints, scale: M::Floats, input: *const Q8Block) -> M::Floats {
        // SAFETY: the caller's.
        unsafe { M::add_product(total, M::multiply(M::floats_from_ints(sum), scale), M::splat((*input).scale)) }
    }
}

impl<T: BlockKind> Family for Blocks<T> {
    const FORMAT: Format = Format::Q8;
    const SPAN: usize = 256;
    const DIRECT: bool = true;

    fn strip_bytes(columns: usize) -> usize {
        (columns / COLUMNS * (Self::VALUES + SCALES)).next_multiple_of(64)
    }

    fn pack_row(row: usize, bytes: &[u8], strip: &mut [u8]) {
        let scales = bytes.len() / T::BLOCK * Self::VALUES;
        for (number, block) in bytes.chunks_exact(T::BLOCK).enumerate() {
            strip[scales + number * SCALES + row * 2..][..2].copy_from_slice(&block[..2]);
            let packed = &mut strip[number * Self::VALUES..][..Self::VALUES];
            let values = &block[2..];
            for at in 0..COLUMNS {
                // Low nibbles are the first 16 columns, high ones the others.
                let value = match (T::NIBBLES, at / 16) {
                    (false, _) => values[at],
                    (true, 0) => values[at] & 15,
                    (true, _) => values[at - 16] >> 4,
                };
                let (group, byte) = (at / 4, row * 4 + at % 4);
                if T::NIBBLES {
                    packed[group / 2 * 64 + byte] |= value << (group % 2 * 4);
                } else {
                    packed[group * 64 + byte] = value;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn few<M: Machine, const R: usize>(
        strips: Strips,
        columns: usize,
        inputs: &Inputs,
        row: usize,
        totals: *mut [Total; R],
    ) {
        let (blocks, pitch) = (columns / COLUMNS, inputs.rows());
        let inputs = inputs.q8(0, row);
        // SAFETY: the caller vouches for strips, inputs and totals.
        unsafe { M::enter(Few::<T, R> { strips, blocks, inputs, pitch, totals, kind: PhantomData }) }
    }

    #[inline(always)]
    unsafe fn unpack<M: Machine>(strip: *const u8, columns: usize, span: usize, to: *mut Unpacked) {
        let blocks = blocks_in::<T>(columns, span);
        let first = span * Self::SPAN / COLUMNS;
        let values = strip.wrapping_add(first * Self::VALUES);
        let scales = strip.wrapping_add(columns / COLUMNS * Self::VALUES + first * SCALES);
        // SAFETY: the caller vouches for strip and destination.
        unsafe { M::enter(Unpack::<T> { values, scales, blocks, to, kind: PhantomData }) }
    }

    #[inline(always)]
    unsafe fn tile<M: Machine, const R: usize, const S: usize>(
        weights: *const Unpacked,
        columns: usize,
        span: usize,
        inputs: &Inputs,
        row: usize,
        totals: *mut [Total; S],
    ) {
        let blocks = blocks_in::<T>(columns, span);
        let pitch = inputs.rows();
        let inputs = inputs.q8(span * Self::SPAN / COLUMNS, row);
        // SAFETY: the caller vouches for weights, inputs and totals.
        unsafe { M::enter(Tile::<T, R, S> { weights, blocks, inputs, pitch, totals, kind: PhantomData }) }
    }
}

/// Blocks of a span; the last span may be shorter.
fn blocks_in<T: BlockKind>(columns: usize, span: usize) -> usize {
    let spanned = Blocks::<T>::SPAN;
    (columns - span * spanned).min(spanned) / COLUMNS
}

/// `R` input rows straight from some strips.
struct Few<T, const R: usize> {
    strips: Strips,
    blocks: usize,
    inputs: *const Q8Block,
    pitch: usize,
    totals: *mut [Total; R],
    kind: PhantomData<T>,
}

impl<T: BlockKind, const R: usize> Kernel for Few<T, R> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: `blocks` blocks in each strip and, for each, `R` input blocks; the machine is the caller's.
        unsafe {
            for first in (0..self.blocks).step_by(TOGETHER) {
                for strip in 0..self.strips.count {
                    let start = self.strips.start.add(strip * self.strips.distance);
                    self.blocks::<M>(start, first, self.totals.add(strip).cast());
                }
            }
        }
    }
}

/// Blocks of a strip that are multiplied before those of the next strip.
const TOGETHER: usize = 8;

impl<T: BlockKind, const R: usize> Few<T, R> {
    #[inline(always)]
    unsafe fn blocks<M: Machine>(&self, strip: *const u8, first: usize, to: *mut f32) {
        // SAFETY: as for `run`.
        unsafe {
            let scales = strip.add(self.blocks * Blocks::<T>::VALUES);
            let mut totals = [M::zero(); R];
            for (r, total) in totals.iter_mut().enumerate() {
                *total = M::floats(to.add(r * 16));
            }
            for number in first..self.blocks.min(first + TOGETHER) {
                let block = strip.add(number * Blocks::<T>::VALUES);
                let ahead = block.wrapping_add(TOGETHER * Blocks::<T>::VALUES);
                for line in 0..Blocks::<T>::VALUES / 64 {
                    M::prefetch(ahead.wrapping_add(line * 64));
                }
                let scales = scales.add(number * SCALES);
                M::prefetch(scales.wrapping_add(TOGETHER * SCALES));
                let inputs = self.inputs.add(number * self.pitch);
                let mut sums = [M::zero_ints(); R];
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = Blocks::<T>::start::<M>(inputs.add(r));
                }
                for (group, bytes) in Blocks::<T>::values::<M>(block).into_iter().enumerate() {
                    for (r, sum) in sums.iter_mut().enumerate() {
                        *sum = Blocks::<T>::dot::<M>(*sum, bytes, inputs.add(r).cast::<i8>().add(group * 4));
                    }
                }
                let scale = M::floats_from_f16(scales.cast());
                for (r, total) in totals.iter_mut().enumerate() {
                    *total = Blocks::<T>::scaled::<M>(*total, sums[r], scale, inputs.add(r));
                }
            }
            for (r, total) in totals.into_iter().enumerate() {
                M::store(to.add(r * 16), total);
            }
        }
    }
}

/// A span's bytes in the form of `dot`, and its scales as floats.
struct Unpack<T> {
    values: *const u8,
    scales: *const u8,
    blocks: usize,
    to: *mut Unpacked,
    kind: PhantomData<T>,
}

impl<T: BlockKind> Kernel for Unpack<T> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: the blocks of a span and a whole destination; the machine is the caller's.
        unsafe {
            let bytes = (&raw mut (*self.to).bytes).cast::<u8>();
            let factors = (&raw mut (*self.to).factors).cast::<f32>();
            for block in 0..self.blocks {
                let values = Blocks::<T>::values::<M>(self.values.add(block * Blocks::<T>::VALUES));
                for (at, vector) in values.into_iter().enumerate() {
                    M::store_bytes(bytes.add((block * 8 + at) * 64), vector);
                }
                let scales = M::floats_from_f16(self.scales.add(block * SCALES).cast());
                M::store(factors.add(block * 16), scales);
            }
        }
    }
}

/// `R` input rows times `S` unpacked strips, held in registers.
struct Tile<T, const R: usize, const S: usize> {
    weights: *const Unpacked,
    blocks: usize,
    inputs: *const Q8Block,
    pitch: usize,
    totals: *mut [Total; S],
    kind: PhantomData<T>,
}

impl<T: BlockKind, const R: usize, const S: usize> Kernel for Tile<T, R, S> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: `S` unpacked spans, `R` input blocks for each of theirs, `R` rows of totals; the machine is the caller's.
        unsafe {
            let mut totals = [[M::zero(); S]; R];
            for (r, totals) in totals.iter_mut().enumerate() {
                for (s, total) in totals.iter_mut().enumerate() {
                    *total = M::floats(self.totals.add(r).cast::<f32>().add(s * 16));
                }
            }
            for block in 0..self.blocks {
                let inputs = self.inputs.add(block * self.pitch);
                let mut sums = [[M::zero_ints(); S]; R];
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [Blocks::<T>::start::<M>(inputs.add(r)); S];
                }
                for group in 0..8 {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (s, sum) in sums.iter_mut().enumerate() {
                            let bytes = (&raw const (*self.weights.add(s)).bytes).cast::<u8>();
                            let bytes = M::bytes(bytes.add((block * 8 + group) * 64));
                            *sum = Blocks::<T>::dot::<M>(*sum, bytes, inputs.add(r).cast::<i8>().add(group * 4));
                        }
                    }
                }
                for s in 0..S {
                    let scale = M::floats((&raw const (*self.weights.add(s)).factors).cast::<f32>().add(block * 16));
                    for r in 0..R {
                        totals[r][s] = Blocks::<T>::scaled::<M>(totals[r][s], sums[r][s], scale, inputs.add(r));
                    }
                }
            }
            for (r, totals) in totals.iter().enumerate() {
                for (s, total) in totals.iter().enumerate() {
                    M::store(self.totals.add(r).cast::<f32>().add(s * 16), *total);
                }
            }
        }
    }
}
