//! The register tile of the K-quants: some input rows times some unpacked strips, for one block. The order of additions is
//! that of `superblock`.

use super::family::{Total, Unpacked};
use super::machine::{Kernel, Machine};
use super::quantize::Q8KBlock;

/// `R` input rows times `S` unpacked strips, held in registers.
pub(super) struct Tile<const FINE: bool, const R: usize, const S: usize> {
    pub(super) weights: *const Unpacked,
    pub(super) inputs: *const Q8KBlock,
    pub(super) totals: *mut [Total; S],
}

impl<const FINE: bool, const R: usize, const S: usize> Kernel for Tile<FINE, R, S> {
    #[inline(always)]
    unsafe fn run<M: Machine>(self) {
        let Tile { weights, inputs, totals } = self;
        // SAFETY: `S` unpacked tiles, `R` input blocks and rows of totals; the machine is the caller's.
        unsafe {
            let (subs, groups) = if FINE { (16, 4) } else { (8, 8) };
            let mut values = [[M::zero(); S]; R];
            for sub in 0..subs {
                let mut sums = [[M::zero_ints(); S]; R];
                if FINE {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let start = (&raw const (*inputs.add(r)).starts).cast::<i32>().add(sub);
                        *sums = [M::splat_int(*start); S];
                    }
                }
                for group in sub * groups..(sub + 1) * groups {
                    let mut bytes = [M::bytes((&raw const (*weights).bytes).cast::<u8>().add(group * 64)); S];
                    for (s, bytes) in bytes.iter_mut().enumerate() {
                        *bytes = M::bytes((&raw const (*weights.add(s)).bytes).cast::<u8>().add(group * 64));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let with = inputs.add(r).cast::<i8>().add(group * 4);
                        for (sum, bytes) in sums.iter_mut().zip(bytes) {
                            *sum = M::dot(*sum, bytes, with);
                        }
                    }
                }
                for s in 0..S {
                    let factor = M::floats((&raw const (*weights.add(s)).factors).cast::<f32>().add(sub * 16));
                    for r in 0..R {
                        values[r][s] = M::add_product(values[r][s], M::floats_from_ints(sums[r][s]), factor);
                    }
                }
            }
            for (r, values) in values.iter().enumerate() {
                let input = inputs.add(r);
                let scale = M::splat((*input).scale);
                for (s, value) in values.iter().enumerate() {
                    let value = if FINE { *value } else { subtract_minima::<M>(*value, weights.add(s), input) };
                    let total = totals.add(r).cast::<f32>().add(s * 16);
                    M::store(total, M::add_product(M::floats(total), value, scale));
                }
            }
        }
    }
}

/// # Safety
/// As for `Tile::run`.
#[inline(always)]
unsafe fn subtract_minima<M: Machine>(value: M::Floats, weights: *const Unpacked, input: *const Q8KBlock) -> M::Floats {
    // SAFETY: the caller's.
    unsafe {
        let mut sum = M::zero_ints();
        for pair in 0..4 {
            let minima = M::pairs((&raw const (*weights).minima).cast::<i16>().add(pair * 32));
            sum = M::dot_pairs(sum, minima, (&raw const (*input).sums).cast::<i16>().add(pair * 2));
        }
        let minimum = M::floats((&raw const (*weights).minimum).cast());
        M::subtract_product(value, M::floats_from_ints(sum), minimum)
    }
}
