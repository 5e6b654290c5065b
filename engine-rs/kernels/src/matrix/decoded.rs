//! Kinds without a packing of their own: a strip keeps their blocks as they are in the file, and every product decodes
//! them to floats, span by span. Slower than the others, and just as exact.

use super::family::{Family, STRIP, Strips, Total, Unpacked};
use super::floats::Tile;
use super::inputs::{Format, Inputs, RUN};
use super::machine::{Kernel, Machine};
use crate::{BlockType, decode};
use std::marker::PhantomData;

pub(super) trait DecodedKind: Copy + 'static {
    const KIND: BlockType;
}

macro_rules! decoded_kinds {
    ($($name:ident = $kind:ident;)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl DecodedKind for $name {
            const KIND: BlockType = BlockType::$kind;
        }
    )*};
}

decoded_kinds! {
    Q2K = Q2_K;
    Q3K = Q3_K;
    Q41 = Q4_1;
    Q50 = Q5_0;
    Q51 = Q5_1;
}

/// A strip is, for each span of columns, the blocks of row 0, of row 1, and so on.
#[derive(Clone, Copy)]
pub(super) struct Decoded<T>(PhantomData<T>);

const SPAN: usize = 256;

impl<T: DecodedKind> Decoded<T> {
    /// Bytes of a row's blocks in a whole span.
    const BYTES: usize = SPAN / T::KIND.elements * T::KIND.bytes;
}

impl<T: DecodedKind> Family for Decoded<T> {
    const FORMAT: Format = Format::F32;
    const SPAN: usize = SPAN;
    const DIRECT: bool = false;

    fn strip_bytes(columns: usize) -> usize {
        (columns / T::KIND.elements * T::KIND.bytes * STRIP).next_multiple_of(64)
    }

    fn pack_row(row: usize, bytes: &[u8], strip: &mut [u8]) {
        for (span, blocks) in bytes.chunks(Self::BYTES).enumerate() {
            let at = span * Self::BYTES * STRIP + row * blocks.len();
            strip[at..at + blocks.len()].copy_from_slice(blocks);
        }
    }

    unsafe fn few<M: Machine, const R: usize>(_: Strips, _: usize, _: &Inputs, _: usize, _: *mut [Total; R]) {
        unreachable!("blocks that are decoded have no kernel for few rows");
    }

    #[inline(always)]
    unsafe fn unpack<M: Machine>(strip: *const u8, columns: usize, span: usize, to: *mut Unpacked) {
        let width = SPAN.min(columns - span * SPAN);
        let bytes = width / T::KIND.elements * T::KIND.bytes;
        // SAFETY: a strip holds sixteen rows of blocks of this span.
        let rows = unsafe { std::slice::from_raw_parts(strip.add(span * Self::BYTES * STRIP), bytes * STRIP) };
        let mut values = [[0.0; SPAN]; STRIP];
        for (bytes, values) in rows.chunks_exact(bytes).zip(&mut values) {
            decode(M::ISA, T::KIND, bytes, &mut values[..width]);
        }
        // SAFETY: the caller vouches for the destination.
        unsafe { M::enter(Transpose { values: &values, to: (&raw mut (*to).bytes).cast() }) }
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
        let (pitch, runs) = (inputs.rows(), SPAN.min(columns - span * SPAN).div_ceil(RUN));
        let inputs = inputs.run(span * SPAN / RUN, row);
        // SAFETY: the caller vouches for weights, inputs and totals.
        unsafe { M::enter(Tile::<R, S> { weights, runs, inputs, pitch, totals }) }
    }
}

/// Rows of floats to columns.
struct Transpose<'a> {
    values: &'a [[f32; SPAN]; STRIP],
    to: *mut f32,
}

impl Kernel for Transpose<'_> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        for column in 0..SPAN {
            for (row, values) in self.values.iter().enumerate() {
                // SAFETY: the destination has room for a span.
                unsafe { self.to.add(column * STRIP + row).write(values[column]) }
            }
        }
    }
}
