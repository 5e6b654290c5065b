//! What attention and the row kernels need of a vector beyond `Lanes`: maxima, rounding, powers of two, bytes and halves,
//! and the exponential built from them. The polynomial is the same everywhere; where a processor fuses, the last bit may
//! differ from one instruction set to another, never from one row to another.

use super::isa::{Lanes, Portable};

/// # Safety
/// As for `Lanes`.
pub(crate) unsafe trait Math: Lanes {
    /// Vector registers of the processor: how large a tile of sums may be. Plain Rust has none.
    const REGISTERS: usize;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// The larger of both, lane by lane; a NaN in `other` stays.
    unsafe fn larger(self, other: Self) -> Self;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
    /// To the nearest integer, halves to the even one.
    unsafe fn round(self) -> Self;
    /// `self * 2^power` for integral powers from -126 to 0.
    unsafe fn scale_by(self, power: Self) -> Self;
    /// Signed bytes, as numbers.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// Rounded to halves, ties to even.
    unsafe fn store_f16(self, to: *mut u16);
}

/// Asks for the cache line of an address that will be read soon; any address will do. The line goes to the second-level
/// cache: blocks of the key-value cache lie so that they compete for the same few lines of the first.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and SSE is part of every x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{address}]", address = in(reg) address, options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

/// 2^x for x <= 0, to about one unit in the last place; 2^0 is exactly 1, anything below 2^-126 is 2^-126, NaN stays NaN.
///
/// # Safety
/// `L` must be available.
#[inline(always)]
pub(crate) unsafe fn exp2<L: Math>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::splat(-126.0).larger(x);
        let power = x.round();
        let part = x.add_product(power, L::splat(-1.0));
        // Least largest relative error over -0.5..0.5: 2e-9 before rounding.
        let mut sum = L::splat(1.534_581_2e-4);
        for coefficient in [1.339_993_1e-3, 9.618_489e-3, 5.550_328_8e-2, 2.402_264_7e-1, std::f32::consts::LN_2, 1.0] {
            sum = L::splat(coefficient).add_product(sum, part);
        }
        sum.scale_by(power)
    }
}

// SAFETY: plain Rust, available everywhere.
unsafe impl Math for Portable {
    const REGISTERS: usize = 0;

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Portable(std::array::from_fn(|lane| self.0[lane] * other.0[lane]))
    }

    #[inline(always)]
    unsafe fn larger(self, other: Self) -> Self {
        Portable(std::array::from_fn(|lane| if self.0[lane] > other.0[lane] { self.0[lane] } else { other.0[lane] }))
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |most, lane| if lane > most { lane } else { most })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding 1.5 * 2^23 leaves no bits for a fraction.
        const ROUND: f32 = 12_582_912.0;
        Portable(self.0.map(|lane| (lane + ROUND) - ROUND))
    }

    #[inline(always)]
    unsafe fn scale_by(self, power: Self) -> Self {
        let factor = |power: f32| f32::from_bits((power as i32).wrapping_add(127).cast_unsigned() << 23);
        Portable(std::array::from_fn(|lane| self.0[lane] * factor(power.0[lane])))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller vouches for eight elements.
        Portable(unsafe { from.cast::<[i8; 8]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        let narrow = self.0.map(|lane| half::f16::from_f32(lane).to_bits());
        // SAFETY: the caller vouches for eight elements.
        unsafe { to.cast::<[u16; 8]>().write_unaligned(narrow) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Math;
    use crate::isa::x86::{Avx2, Avx512};
    use std::arch::x86_64::*;

    // SAFETY: used only in functions with AVX2, FMA and F16C enabled.
    unsafe impl Math for Avx2 {
        const REGISTERS: usize = 16;

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn larger(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            // SAFETY: see the trait.
            unsafe {
                let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }

        #[inline(always)]
        unsafe fn round(self) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }

        #[inline(always)]
        unsafe fn scale_by(self, power: Self) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe {
                let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power.0), _mm256_set1_epi32(127));
                _mm256_mul_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
            })
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) })
        }

        #[inline(always)]
        unsafe fn store_f16(self, to: *mut u16) {
            // SAFETY: see the trait.
            unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)) }
        }
    }

    // SAFETY: used only in functions with AVX-512 F enabled.
    unsafe impl Math for Avx512 {
        const REGISTERS: usize = 32;

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn larger(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            // SAFETY: see the trait.
            unsafe { _mm512_reduce_max_ps(self.0) }
        }

        #[inline(always)]
        unsafe fn round(self) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }

        #[inline(always)]
        unsafe fn scale_by(self, power: Self) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_scalef_ps(self.0, power.0) })
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
        }

        #[inline(always)]
        unsafe fn store_f16(self, to: *mut u16) {
            // SAFETY: see the trait.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Math;
    use crate::isa::arm::Neon;
    use std::arch::aarch64::*;

    // SAFETY: NEON is part of every AArch64 target of ours.
    unsafe impl Math for Neon {
        const REGISTERS: usize = 32;

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vaddq_f32(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vmulq_f32(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn larger(self, other: Self) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vmaxq_f32(self.0, other.0) })
        }

        #[inline(always)]
        unsafe fn largest(self) -> f32 {
            // SAFETY: see the trait.
            unsafe { vmaxvq_f32(self.0) }
        }

        #[inline(always)]
        unsafe fn round(self) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vrndnq_f32(self.0) })
        }

        #[inline(always)]
        unsafe fn scale_by(self, power: Self) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe {
                let exponent = vaddq_s32(vcvtq_s32_f32(power.0), vdupq_n_s32(127));
                vmulq_f32(self.0, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
            })
        }

        #[inline(always)]
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: the caller vouches for four elements.
            let wide = unsafe { from.cast::<[i8; 4]>().read_unaligned() }.map(f32::from);
            // SAFETY: `wide` holds four elements.
            Neon(unsafe { vld1q_f32(wide.as_ptr()) })
        }

        #[inline(always)]
        unsafe fn store_f16(self, to: *mut u16) {
            let mut wide = [0.0; 4];
            // SAFETY: `wide` holds four elements, and the caller vouches for those of `to`.
            unsafe {
                vst1q_f32(wide.as_mut_ptr(), self.0);
                to.cast::<[u16; 4]>().write_unaligned(wide.map(|lane: f32| half::f16::from_f32(lane).to_bits()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::isa::per_isa;

    const TOLERANCE: f64 = 1.5e-7;

    per_isa! {
        fn exp2_of(values: &mut [f32]) = exp2_for
    }

    #[inline(always)]
    fn exp2_for<L: Math>(values: &mut [f32]) {
        for values in values.chunks_exact_mut(L::N) {
            // SAFETY: `per_isa!` runs this only where `L` is available; the chunk holds `L::N` elements.
            unsafe { exp2(L::load(values.as_ptr())).store(values.as_mut_ptr()) };
        }
    }

    #[test]
    fn powers_of_two_are_close() {
        let inputs: Vec<f32> = (0..126_000).map(|step| step as f32 / -1000.0).collect();
        for isa in Isa::available() {
            let mut outputs = inputs.clone();
            exp2_of(isa, &mut outputs);
            for (x, got) in inputs.iter().zip(&outputs) {
                let expected = f64::from(*x).exp2();
                assert!((f64::from(*got) / expected - 1.0).abs() < TOLERANCE, "{isa:?} {x}: {got} {expected}");
            }
        }
    }

    #[test]
    fn edges_of_exp2_hold() {
        for isa in Isa::available() {
            let mut values = [0.0; 16];
            values[..3].copy_from_slice(&[f32::NEG_INFINITY, f32::NAN, -1e30]);
            exp2_of(isa, &mut values);
            assert!(
                values[0] < 1e-37 && values[1].is_nan() && values[2] < 1e-37 && values[3..] == [1.0; 13],
                "{isa:?}"
            );
        }
    }
}
