//! F32, F16 and BF16 weights, and those that are decoded to floats: a strip holds its columns one after another, sixteen
//! weights each, filled up with zeros to whole runs of columns. Every product is four chains of fused additions in each
//! run, over every fourth column, and these chains' sums are added in order.

use super::family::{Family, STRIP, Strips, Total, Unpacked};
use super::inputs::{Format, Inputs, RUN};
use super::machine::{Kernel, Machine};
use std::marker::PhantomData;

/// How one weight is stored.
pub(super) trait FloatKind: Copy + 'static {
    const BYTES: usize;
    /// Sixteen of them.
    ///
    /// # Safety
    /// The machine must be available and `from` valid.
    unsafe fn load<M: Machine>(from: *const u8) -> M::Floats;
}

macro_rules! float_kinds {
    ($($name:ident = $bytes:literal, $load:ident;)*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl FloatKind for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            unsafe fn load<M: Machine>(from: *const u8) -> M::Floats {
                // SAFETY: the caller's.
                unsafe { M::$load(from.cast()) }
            }
        }
    )*};
}

float_kinds! {
    F32 = 4, floats;
    F16 = 2, floats_from_f16;
    BF16 = 2, floats_from_bf16;
}

#[derive(Clone, Copy)]
pub(super) struct Floats<T>(PhantomData<T>);

impl<T: FloatKind> Family for Floats<T> {
    const FORMAT: Format = Format::F32;
    const SPAN: usize = RUN;
    const DIRECT: bool = true;

    fn strip_bytes(columns: usize) -> usize {
        columns.next_multiple_of(RUN) * STRIP * T::BYTES
    }

    fn pack_row(row: usize, bytes: &[u8], strip: &mut [u8]) {
        for (weight, column) in bytes.chunks_exact(T::BYTES).zip(strip.chunks_exact_mut(STRIP * T::BYTES)) {
            column[row * T::BYTES..][..T::BYTES].copy_from_slice(weight);
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
        let (runs, pitch) = (columns.div_ceil(RUN), inputs.rows());
        let inputs = inputs.run(0, row);
        // SAFETY: the caller vouches for strips, inputs and totals.
        unsafe { M::enter(Few::<T, R> { strips, runs, inputs, pitch, totals, kind: PhantomData }) }
    }

    #[inline(always)]
    unsafe fn unpack<M: Machine>(strip: *const u8, _columns: usize, span: usize, to: *mut Unpacked) {
        let from = strip.wrapping_add(span * RUN * STRIP * T::BYTES);
        // SAFETY: the caller vouches for strip and destination.
        unsafe { M::enter(Unpack::<T> { from, to, kind: PhantomData }) }
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
        let pitch = inputs.rows();
        let inputs = inputs.run(span, row);
        // SAFETY: the caller vouches for weights, inputs and totals.
        unsafe { M::enter(Tile::<R, S> { weights, runs: 1, inputs, pitch, totals }) }
    }
}

/// Runs of a strip that are multiplied before those of the next strip: long enough for the processor to see that memory
/// is read in order, short enough for their inputs to stay in the caches.
const TOGETHER: usize = 16;
/// Chains of additions in a run: one alone would wait for its own results.
const CHAINS: usize = 4;

/// `R` input rows straight from some strips.
struct Few<T, const R: usize> {
    strips: Strips,
    runs: usize,
    inputs: *const f32,
    pitch: usize,
    totals: *mut [Total; R],
    kind: PhantomData<T>,
}

impl<T: FloatKind, const R: usize> Kernel for Few<T, R> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: `runs` runs in each strip and `R` of inputs for each; the machine is the caller's.
        unsafe {
            for first in (0..self.runs).step_by(TOGETHER) {
                for strip in 0..self.strips.count {
                    let strip_start = self.strips.start.add(strip * self.strips.distance);
                    for run in first..self.runs.min(first + TOGETHER) {
                        let (weights, totals) = (strip_start.add(run * Self::RUN), self.totals.add(strip).cast());
                        let inputs = self.inputs.add(run * RUN * self.pitch);
                        match R {
                            1..=4 => Self::run::<M, CHAINS>(weights, inputs, totals),
                            _ => Self::run::<M, 2>(weights, inputs, totals),
                        }
                    }
                }
            }
        }
    }
}

impl<T: FloatKind, const R: usize> Few<T, R> {
    /// Bytes of sixteen weights, and of a run of them.
    const COLUMN: usize = STRIP * T::BYTES;
    const RUN: usize = RUN * Self::COLUMN;

    /// A run, `N` chains at a time.
    #[inline(always)]
    unsafe fn run<M: Machine, const N: usize>(weights: *const u8, inputs: *const f32, totals: *mut f32) {
        // SAFETY: as for `Kernel::run`.
        unsafe {
            for first in (0..CHAINS).step_by(N) {
                let mut sums = [[M::zero(); R]; N];
                for at in (first..RUN).step_by(CHAINS) {
                    for (n, sums) in sums.iter_mut().enumerate() {
                        let column = at + n;
                        let weights = weights.add(column * Self::COLUMN);
                        if N < CHAINS {
                            // The columns of the other chains, so that memory is read in order.
                            M::prefetch(weights.wrapping_add(N * Self::COLUMN));
                        }
                        let weight = T::load::<M>(weights);
                        for (r, sum) in sums.iter_mut().enumerate() {
                            *sum = M::add_product(*sum, weight, M::splat(*inputs.add(r * RUN + column)));
                        }
                    }
                }
                for r in 0..R {
                    let total = totals.add(r * STRIP);
                    let mut value = M::floats(total);
                    for sums in &sums {
                        value = M::add(value, sums[r]);
                    }
                    M::store(total, value);
                }
            }
        }
    }
}

/// A run as floats.
struct Unpack<T> {
    from: *const u8,
    to: *mut Unpacked,
    kind: PhantomData<T>,
}

impl<T: FloatKind> Kernel for Unpack<T> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: a whole run and a whole destination; the machine is the caller's.
        unsafe {
            let to = (&raw mut (*self.to).bytes).cast::<f32>();
            for column in 0..RUN {
                M::store(to.add(column * STRIP), T::load::<M>(self.from.add(column * STRIP * T::BYTES)));
            }
        }
    }
}

/// `R` input rows times some runs of `S` unpacked strips, held in registers.
pub(super) struct Tile<const R: usize, const S: usize> {
    pub(super) weights: *const Unpacked,
    pub(super) runs: usize,
    pub(super) inputs: *const f32,
    pub(super) pitch: usize,
    pub(super) totals: *mut [Total; S],
}

impl<const R: usize, const S: usize> Kernel for Tile<R, S> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        // SAFETY: `S` unpacked runs, `R` runs of inputs, `R` rows of totals; the machine is the caller's.
        unsafe {
            let mut totals = [[M::zero(); S]; R];
            for (r, totals) in totals.iter_mut().enumerate() {
                for (s, total) in totals.iter_mut().enumerate() {
                    *total = M::floats(self.totals.add(r).cast::<f32>().add(s * STRIP));
                }
            }
            for chain in 0..self.runs * CHAINS {
                let sums = self.chain::<M>(chain / CHAINS, chain % CHAINS);
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for (total, sum) in totals.iter_mut().zip(sums) {
                        *total = M::add(*total, sum);
                    }
                }
            }
            for (r, totals) in totals.iter().enumerate() {
                for (s, total) in totals.iter().enumerate() {
                    M::store(self.totals.add(r).cast::<f32>().add(s * STRIP), *total);
                }
            }
        }
    }
}

impl<const R: usize, const S: usize> Tile<R, S> {
    #[inline(always)]
    unsafe fn chain<M: Machine>(&self, run: usize, chain: usize) -> [[M::Floats; S]; R] {
        // SAFETY: as for `run`.
        unsafe {
            let inputs = self.inputs.add(run * RUN * self.pitch);
            let mut sums = [[M::zero(); S]; R];
            for column in (chain..RUN).step_by(CHAINS) {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let input = M::splat(*inputs.add(r * RUN + column));
                    for (s, sum) in sums.iter_mut().enumerate() {
                        let weights = (&raw const (*self.weights.add(s)).bytes).cast::<f32>();
                        let weights = M::floats(weights.add((run * RUN + column) * STRIP));
                        *sum = M::add_product(*sum, weights, input);
                    }
                }
            }
            sums
        }
    }
}
