//! K-quants: 256 columns share a scale, and each 16 or 32 of them a factor. Sixteen rows of such a block are one tile:
//!
//! ```text
//! factors  16 per sub-block, one byte for each row
//! minima   [pair of sub-blocks][row][2] bytes, where the type has them
//! scale    f16 for each row; then the minima's, where the type has them
//! values   for each 32 columns: 256 bytes of nibbles, [8 columns][row][4], columns 0-3 low and 4-7 high; then 64
//!          bytes for each bit above the nibble, [row][4]
//! ```
//!
//! A tile is read from front to back, which is what the processor foresees best.
//!
//! Every product is computed in this order, whichever kernel does it: for each sub-block the exact integer sum, times
//! `scale * factor`, is added to the block's value; then the exact sum over the minima is subtracted, and the block's
//! value times the input's scale is added to the total.

use super::family::{Family, Strips, Total, Unpacked};
use super::inputs::{Format, Inputs};
use super::machine::{Kernel, Machine};
use super::quantize::Q8KBlock;
use super::supertile::Tile;
use std::marker::PhantomData;

/// Bytes of the nibbles of 32 columns.
const NIBBLES: usize = 256;

/// A block of one row, opened for packing.
pub(super) struct Opened {
    pub(super) values: [u8; 256],
    pub(super) factors: [u8; 16],
    pub(super) minima: [u8; 8],
    pub(super) scale: [u8; 2],
    pub(super) minimum: [u8; 2],
}

pub(super) trait SuperType: Copy + 'static {
    /// Bytes of a block in the file.
    const BLOCK: usize;
    /// Bits of a value above its nibble: 0, 1 or 2.
    const UPPER: usize;
    /// Sixteen signed factors for values that count from 32, instead of eight factors and minima.
    const FINE: bool;
    fn open(block: &[u8]) -> Opened;
}

#[derive(Clone, Copy)]
pub(super) struct Super<T>(PhantomData<T>);

impl<T: SuperType> Super<T> {
    const MINIMA: usize = if T::FINE { 256 } else { 128 };
    const SCALES: usize = 256;
    const VALUES: usize = 320;
    /// Bytes of 32 columns.
    const PAIR: usize = NIBBLES + 64 * T::UPPER;
    const TILE: usize = Self::VALUES + 8 * Self::PAIR;

    fn place(opened: &Opened, row: usize, tile: &mut [u8]) {
        let pairs = tile[Self::VALUES..].chunks_exact_mut(Self::PAIR);
        for (values, pair) in opened.values.as_chunks::<32>().0.iter().zip(pairs) {
            let (nibbles, upper) = pair.split_at_mut(NIBBLES);
            for (values, vector) in values.as_chunks::<8>().0.iter().zip(nibbles.as_chunks_mut::<64>().0) {
                let to = &mut vector[row * 4..][..4];
                for (j, to) in to.iter_mut().enumerate() {
                    *to = values[j] & 15 | (values[j + 4] & 15) << 4;
                }
            }
            let parts = values.chunks_exact(32 / T::UPPER.max(1));
            for (values, vector) in parts.zip(upper.as_chunks_mut::<64>().0) {
                let to = &mut vector[row * 4..][..4];
                for (group, values) in values.as_chunks::<4>().0.iter().enumerate() {
                    for (value, to) in values.iter().zip(&mut *to) {
                        *to |= (value >> 4) << (group * T::UPPER);
                    }
                }
            }
        }
        for (sub, factor) in opened.factors.iter().enumerate().take(if T::FINE { 16 } else { 8 }) {
            tile[sub * 16 + row] = *factor;
        }
        tile[Self::SCALES + row * 2..][..2].copy_from_slice(&opened.scale);
        if !T::FINE {
            for (sub, minimum) in opened.minima.iter().enumerate() {
                tile[Self::MINIMA + (sub / 2 * 16 + row) * 2 + sub % 2] = *minimum;
            }
            tile[Self::SCALES + 32 + row * 2..][..2].copy_from_slice(&opened.minimum);
        }
    }

    /// Columns `32 * pair + 16 * HALF` and following, four to a vector.
    #[inline(always)]
    unsafe fn quad<M: Machine, const HALF: usize>(tile: *const u8, pair: usize) -> [M::Bytes; 4] {
        // SAFETY: within the tile; the machine is the caller's.
        unsafe {
            let values = tile.add(Self::VALUES + pair * Self::PAIR);
            let nibbles = values.add(HALF * 128);
            let (a, b) = (M::bytes(nibbles), M::bytes(nibbles.add(64)));
            let low = [M::mask(a, 15), M::mask(M::right::<4>(a), 15), M::mask(b, 15), M::mask(M::right::<4>(b), 15)];
            if T::UPPER == 0 {
                return low;
            }
            let upper = values.add(NIBBLES);
            let upper = if T::UPPER == 2 {
                let bits = M::bytes(upper.add(HALF * 64));
                [M::left::<4>(bits), M::left::<2>(bits), bits, M::right::<2>(bits)]
            } else {
                let bits = M::bytes(upper);
                if HALF == 0 {
                    [M::left::<4>(bits), M::left::<3>(bits), M::left::<2>(bits), M::left::<1>(bits)]
                } else {
                    [bits, M::right::<1>(bits), M::right::<2>(bits), M::right::<3>(bits)]
                }
            };
            let mask = if T::UPPER == 2 { 0x30 } else { 0x10 };
            let mut values = low;
            for (value, upper) in values.iter_mut().zip(upper) {
                *value = M::or(*value, M::mask(upper, mask));
            }
            values
        }
    }

    /// `scale * factor` of sub-block `sub`.
    #[inline(always)]
    unsafe fn factor<M: Machine>(tile: *const u8, scale: M::Floats, sub: usize) -> M::Floats {
        // SAFETY: within the tile; the machine is the caller's.
        unsafe {
            let factors = tile.add(sub * 16);
            let factors = if T::FINE { M::ints_from_i8(factors) } else { M::ints_from_u8(factors) };
            M::multiply(scale, M::floats_from_ints(factors))
        }
    }
}

impl<T: SuperType> Family for Super<T> {
    const FORMAT: Format = Format::Q8K;
    const SPAN: usize = 256;
    const DIRECT: bool = true;

    fn strip_bytes(columns: usize) -> usize {
        columns / 256 * Self::TILE
    }

    fn pack_row(row: usize, bytes: &[u8], strip: &mut [u8]) {
        for (block, tile) in bytes.chunks_exact(T::BLOCK).zip(strip.chunks_exact_mut(Self::TILE)) {
            Self::place(&T::open(block), row, tile);
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
        let (blocks, pitch) = (columns / 256, inputs.rows());
        let inputs = inputs.q8k(0, row);
        // SAFETY: the caller vouches for strips, inputs and totals.
        unsafe { M::enter(Few::<T, R> { strips, blocks, inputs, pitch, totals, kind: PhantomData }) }
    }

    #[inline(always)]
    unsafe fn unpack<M: Machine>(strip: *const u8, _columns: usize, span: usize, to: *mut Unpacked) {
        // SAFETY: the caller vouches for strip and destination.
        unsafe { M::enter(Unpack::<T> { tile: strip.add(span * Self::TILE), to, kind: PhantomData }) }
    }

    #[inline(always)]
    unsafe fn tile<M: Machine, const R: usize, const S: usize>(
        weights: *const Unpacked,
        _columns: usize,
        span: usize,
        inputs: &Inputs,
        row: usize,
        totals: *mut [Total; S],
    ) {
        let inputs = inputs.q8k(span, row);
        // SAFETY: the caller vouches for weights, inputs and totals.
        unsafe {
            if T::FINE {
                M::enter(Tile::<true, R, S> { weights, inputs, totals });
            } else {
                M::enter(Tile::<false, R, S> { weights, inputs, totals });
            }
        }
    }
}

/// `R` input rows straight from the tiles of some strips.
struct Few<T, const R: usize> {
    strips: Strips,
    blocks: usize,
    inputs: *const Q8KBlock,
    pitch: usize,
    totals: *mut [Total; R],
    kind: PhantomData<T>,
}

impl<T: SuperType, const R: usize> Kernel for Few<T, R> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: `blocks` tiles in each strip and, for each, `R` input blocks; the machine is the caller's.
        unsafe {
            for block in 0..self.blocks {
                let inputs = self.inputs.add(block * self.pitch);
                for strip in 0..self.strips.count {
                    let tile = self.strips.start.add(strip * self.strips.distance + block * Super::<T>::TILE);
                    Self::block::<M>(tile, inputs, self.totals.add(strip).cast());
                }
            }
        }
    }
}

impl<T: SuperType, const R: usize> Few<T, R> {
    #[inline(always)]
    unsafe fn block<M: Machine>(tile: *const u8, inputs: *const Q8KBlock, totals: *mut f32) {
        // SAFETY: as for `run`.
        unsafe {
            let scale = M::floats_from_f16(tile.add(Super::<T>::SCALES).cast());
            let mut values = [M::zero(); R];
            for pair in 0..8 {
                Self::prefetch::<M>(tile, pair);
                let mut sums = [M::zero_ints(); R];
                if T::FINE {
                    sums = Self::starts::<M>(inputs, pair * 2);
                }
                Self::dots::<M>(Super::<T>::quad::<M, 0>(tile, pair), inputs, pair * 32, &mut sums);
                if T::FINE {
                    let factor = Super::<T>::factor::<M>(tile, scale, pair * 2);
                    Self::scaled::<M>(&sums, factor, &mut values);
                    sums = Self::starts::<M>(inputs, pair * 2 + 1);
                }
                Self::dots::<M>(Super::<T>::quad::<M, 1>(tile, pair), inputs, pair * 32 + 16, &mut sums);
                let sub = if T::FINE { pair * 2 + 1 } else { pair };
                let factor = Super::<T>::factor::<M>(tile, scale, sub);
                Self::scaled::<M>(&sums, factor, &mut values);
            }
            if !T::FINE {
                Self::subtract_minima::<M>(tile, inputs, &mut values);
            }
            for (r, value) in values.into_iter().enumerate() {
                let total = totals.add(r * 16);
                M::store(total, M::add_product(M::floats(total), value, M::splat((*inputs.add(r)).scale)));
            }
        }
    }

    /// An eighth of the tile that follows in this strip; it is read after the other strips' tiles.
    #[inline(always)]
    unsafe fn prefetch<M: Machine>(tile: *const u8, eighth: usize) {
        let lines = const { (Super::<T>::TILE / 64).div_ceil(8) };
        for line in 0..lines {
            // SAFETY: nothing is read.
            unsafe { M::prefetch(tile.wrapping_add(Super::<T>::TILE + (eighth * lines + line) * 64)) }
        }
    }

    #[inline(always)]
    unsafe fn starts<M: Machine>(inputs: *const Q8KBlock, sub: usize) -> [M::Ints; R] {
        // SAFETY: as for `run`.
        unsafe {
            let mut sums = [M::zero_ints(); R];
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = M::splat_int(*(&raw const (*inputs.add(r)).starts).cast::<i32>().add(sub));
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn dots<M: Machine>(quad: [M::Bytes; 4], inputs: *const Q8KBlock, at: usize, sums: &mut [M::Ints; R]) {
        // SAFETY: as for `run`.
        unsafe {
            for (j, bytes) in quad.into_iter().enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = M::dot(*sum, bytes, inputs.add(r).cast::<i8>().add(at + j * 4));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scaled<M: Machine>(sums: &[M::Ints; R], factor: M::Floats, values: &mut [M::Floats; R]) {
        // SAFETY: as for `run`.
        unsafe {
            for (value, sum) in values.iter_mut().zip(sums) {
                *value = M::add_product(*value, M::floats_from_ints(*sum), factor);
            }
        }
    }

    #[inline(always)]
    unsafe fn subtract_minima<M: Machine>(tile: *const u8, inputs: *const Q8KBlock, values: &mut [M::Floats; R]) {
        // SAFETY: as for `run`.
        unsafe {
            let scale = M::floats_from_f16(tile.add(Super::<T>::SCALES + 32).cast());
            let mut sums = [M::zero_ints(); R];
            for pair in 0..4 {
                let minima = M::pairs_from_u8(tile.add(Super::<T>::MINIMA + pair * 32));
                for (r, sum) in sums.iter_mut().enumerate() {
                    let with = (&raw const (*inputs.add(r)).sums).cast::<i16>();
                    *sum = M::dot_pairs(*sum, minima, with.add(pair * 2));
                }
            }
            for (value, sum) in values.iter_mut().zip(sums) {
                *value = M::subtract_product(*value, M::floats_from_ints(sum), scale);
            }
        }
    }
}

/// One tile's weights as bytes and its factors as floats.
struct Unpack<T> {
    tile: *const u8,
    to: *mut Unpacked,
    kind: PhantomData<T>,
}

impl<T: SuperType> Kernel for Unpack<T> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        let (tile, to) = (self.tile, self.to);
        // SAFETY: a whole tile and a whole destination; the machine is the caller's.
        unsafe {
            let bytes = (&raw mut (*to).bytes).cast::<u8>();
            for pair in 0..8 {
                let quads = [Super::<T>::quad::<M, 0>(tile, pair), Super::<T>::quad::<M, 1>(tile, pair)];
                for (at, vector) in quads.as_flattened().iter().enumerate() {
                    M::store_bytes(bytes.add((pair * 8 + at) * 64), *vector);
                }
            }
            let scale = M::floats_from_f16(tile.add(Super::<T>::SCALES).cast());
            for sub in 0..if T::FINE { 16 } else { 8 } {
                let factor = Super::<T>::factor::<M>(tile, scale, sub);
                M::store((&raw mut (*to).factors).cast::<f32>().add(sub * 16), factor);
            }
            if !T::FINE {
                for pair in 0..4 {
                    let minima = M::pairs_from_u8(tile.add(Super::<T>::MINIMA + pair * 32));
                    M::store_pairs((&raw mut (*to).minima).cast::<i16>().add(pair * 32), minima);
                }
                let scale = M::floats_from_f16(tile.add(Super::<T>::SCALES + 32).cast());
                M::store((&raw mut (*to).minimum).cast(), scale);
            }
        }
    }
}
