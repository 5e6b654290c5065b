//! F32, F16 and BF16 weights, and those that are decoded to floats: a strip holds its columns one after another, sixteen
//! weights each, filled up with zeros to whole runs of columns. Every product is a chain of fused additions along each
//! run, and the sum of the runs' sums in order.

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

/// `R` input rows straight from some strips. With few of them, four runs are computed side by side: a chain alone would
/// wait for its own additions.
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
            let mut run = 0;
            while R <= 4 && run + 4 <= self.runs {
                self.runs::<M, 4>(run);
                run += 4;
            }
            while run < self.runs {
                self.runs::<M, 1>(run);
                run += 1;
            }
        }
    }
}

impl<T: FloatKind, const R: usize> Few<T, R> {
    /// Bytes of sixteen weights, of a run of them, and how many fill a cache line.
    const COLUMN: usize = STRIP * T::BYTES;
    const RUN: usize = RUN * Self::COLUMN;
    const PER_LINE: usize = 64 / Self::COLUMN;

    #[inline(always)]
    unsafe fn runs<M: Machine, const N: usize>(&self, run: usize) {
        for strip in 0..self.strips.count {
            let weights = self.strips.start.wrapping_add(strip * self.strips.distance + run * Self::RUN);
            let inputs = self.inputs.wrapping_add(run * RUN * self.pitch);
            // SAFETY: as for `run`.
            unsafe { self.side_by_side::<M, N>(weights, inputs, self.totals.add(strip).cast()) };
        }
    }

    #[inline(always)]
    unsafe fn side_by_side<M: Machine, const N: usize>(&self, weights: *const u8, inputs: *const f32, to: *mut f32) {
        // SAFETY: as for `run`.
        unsafe {
            let mut sums = [[M::zero(); R]; N];
            for line in 0..RUN / Self::PER_LINE {
                for (n, sums) in sums.iter_mut().enumerate() {
                    let weights = weights.add(n * Self::RUN + line * 64);
                    M::prefetch(weights.wrapping_add(N * Self::RUN));
                    for part in 0..Self::PER_LINE {
                        let weight = T::load::<M>(weights.add(part * Self::COLUMN));
                        let input = inputs.add(n * self.pitch * RUN + line * Self::PER_LINE + part);
                        for (r, sum) in sums.iter_mut().enumerate() {
                            *sum = M::add_product(*sum, weight, M::splat(*input.add(r * RUN)));
                        }
                    }
                }
            }
            for r in 0..R {
                let to = to.add(r * STRIP);
                let mut total = M::floats(to);
                for sums in &sums {
                    total = M::add(total, sums[r]);
                }
                M::store(to, total);
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
        for run in 0..self.runs {
            // SAFETY: the caller's.
            unsafe { self.add_run::<M>(run) }
        }
    }
}

impl<const R: usize, const S: usize> Tile<R, S> {
    #[inline(always)]
    unsafe fn add_run<M: Machine>(&self, run: usize) {
        // SAFETY: `S` unpacked runs, `R` runs of inputs, `R` rows of totals; the machine is the caller's.
        unsafe {
            let inputs = self.inputs.add(run * RUN * self.pitch);
            let mut sums = [[M::zero(); S]; R];
            for column in 0..RUN {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let input = M::splat(*inputs.add(r * RUN + column));
                    for (s, sum) in sums.iter_mut().enumerate() {
                        let weights = (&raw const (*self.weights.add(s)).bytes).cast::<f32>();
                        let weights = M::floats(weights.add((run * RUN + column) * STRIP));
                        *sum = M::add_product(*sum, weights, input);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (s, sum) in sums.iter().enumerate() {
                    let total = self.totals.add(r).cast::<f32>().add(s * STRIP);
                    M::store(total, M::add(M::floats(total), *sum));
                }
            }
        }
    }
}
