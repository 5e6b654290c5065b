//! Which vector instructions this processor has, and the few vector operations the kernels are written in. A kernel is
//! one generic function over `Lanes`; `per_isa!` compiles it once per instruction set and picks one at run time, because
//! the wheel itself is built for a baseline processor. Nothing here knows about weights or attention.
//!
//! Kernels are functions and never closures: only a function can carry `#[target_feature]`.

use std::sync::OnceLock;

/// An instruction set that this processor was seen to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(pub(crate) Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// With the products of bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// With the products of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Isa {
    /// Works everywhere.
    pub const PORTABLE: Isa = Isa(Kind::Portable);

    /// All that this processor can run, slowest first.
    pub fn available() -> Vec<Isa> {
        let mut found = vec![Isa::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let has_avx512 = has_avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            found.extend(has_avx2.then_some(Isa(Kind::Avx2)));
            let has_vnni = has_avx512 && is_x86_feature_detected!("avx512vnni");
            found.extend(has_avx512.then_some(Isa(Kind::Avx512)));
            found.extend(has_vnni.then_some(Isa(Kind::Avx512Vnni)));
        }
        #[cfg(target_arch = "aarch64")]
        {
            let has_dot = std::arch::is_aarch64_feature_detected!("dotprod");
            found.push(Isa(Kind::Neon));
            found.extend(has_dot.then_some(Isa(Kind::NeonDot)));
        }
        found
    }

    /// The fastest of `available`.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::available().pop().unwrap_or(Isa::PORTABLE))
    }
}

/// A vector of `N` floats. Implementations of one width add in one fixed order, so a result never depends on the
/// company a row is computed in.
///
/// # Safety
/// Every method may be called only where the instruction set of the implementation is available, and the pointers must
/// be valid for `N` elements.
pub(crate) unsafe trait Lanes: Copy {
    const N: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_f16(from: *const u16) -> Self;
    /// Unsigned bytes, as numbers.
    unsafe fn load_u8(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + a * b`, fused where the instruction set fuses.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum of all lanes, as a tree of fixed shape.
    unsafe fn sum(self) -> f32;
}

/// Eight floats in plain Rust, for processors without a kernel of their own and as the tests' reference.
#[derive(Clone, Copy)]
pub(crate) struct Portable(pub(crate) [f32; 8]);

// SAFETY: plain Rust, available everywhere.
unsafe impl Lanes for Portable {
    const N: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([0.0; 8])
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for eight elements.
        Portable(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: the caller vouches for eight elements.
        Portable(unsafe { from.cast::<[u16; 8]>().read_unaligned() }.map(f16_to_f32))
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self {
        // SAFETY: the caller vouches for eight elements.
        Portable(unsafe { from.cast::<[u8; 8]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for eight elements.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        let mut sum = self.0;
        for ((sum, a), b) in sum.iter_mut().zip(a.0).zip(b.0) {
            *sum += a * b;
        }
        Portable(sum)
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(pub(crate) __m256);

    // SAFETY: used only in functions with AVX2, FMA and F16C enabled.
    unsafe impl Lanes for Avx2 {
        const N: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
        }

        #[inline(always)]
        unsafe fn load_u8(from: *const u8) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the trait.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the trait.
            Avx2(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the trait.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(pub(crate) __m512);

    // SAFETY: used only in functions with AVX-512 F enabled.
    unsafe impl Lanes for Avx512 {
        const N: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_set1_ps(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
        }

        #[inline(always)]
        unsafe fn load_u8(from: *const u8) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the trait.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the trait.
            Avx512(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the trait.
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) mod arm {
    use super::{Lanes, f16_to_f32};
    use std::arch::aarch64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct Neon(pub(crate) float32x4_t);

    // SAFETY: NEON is part of every AArch64 target of ours.
    unsafe impl Lanes for Neon {
        const N: usize = 4;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vdupq_n_f32(0.0) })
        }

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vdupq_n_f32(value) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vld1q_f32(from) })
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u16) -> Self {
            // SAFETY: the caller vouches for four elements.
            let wide = unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(f16_to_f32);
            // SAFETY: `wide` holds four elements.
            Neon(unsafe { vld1q_f32(wide.as_ptr()) })
        }

        #[inline(always)]
        unsafe fn load_u8(from: *const u8) -> Self {
            // SAFETY: the caller vouches for four elements.
            let wide = unsafe { from.cast::<[u8; 4]>().read_unaligned() }.map(f32::from);
            // SAFETY: `wide` holds four elements.
            Neon(unsafe { vld1q_f32(wide.as_ptr()) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: see the trait.
            unsafe { vst1q_f32(to, self.0) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see the trait.
            Neon(unsafe { vfmaq_f32(self.0, a.0, b.0) })
        }

        #[inline(always)]
        unsafe fn sum(self) -> f32 {
            // SAFETY: see the trait.
            unsafe { vaddvq_f32(self.0) }
        }
    }
}

/// Defines `fn name(isa, ...)`, which runs `body::<L>(...)` compiled for the instruction set of `isa`.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            use $crate::isa::Kind;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                $body::<$crate::isa::x86::Avx2>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) {
                $body::<$crate::isa::x86::Avx512>($($arg),*)
            }

            match isa.0 {
                Kind::Portable => $body::<$crate::isa::Portable>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this kind exists only where the features were detected.
                Kind::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Kind::Avx512 | Kind::Avx512Vnni => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                Kind::Neon | Kind::NeonDot => $body::<$crate::isa::arm::Neon>($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

/// Widens a half-precision float. Branch-free, so that loops over it become vector code on every processor: the shifted
/// bits are an f32 too small by 2^112 (subnormals included); infinities and NaNs get their exponent back afterwards.
#[inline(always)]
pub(crate) fn f16_to_f32(half: u16) -> f32 {
    const TWO_TO_112: f32 = f32::from_bits(0x7780_0000);
    let magnitude = f32::from_bits(((half & 0x7fff) as u32) << 13) * TWO_TO_112;
    let special = if half & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (((half & 0x8000) as u32) << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let got = f16_to_f32(bits);
            assert!(got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()), "{bits:#06x}");
        }
    }

    #[test]
    fn portable_is_always_available() {
        assert_eq!(Isa::available()[0], Isa::PORTABLE);
    }
}
