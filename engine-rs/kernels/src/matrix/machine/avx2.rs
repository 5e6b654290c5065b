//! AVX2: sixteen rows are two vectors. Products of bytes are summed in pairs of 16 bits, which the ranges of weights and
//! inputs keep from overflowing: 2 * 63 * 127 and 2 * 128 * 127 both fit.

use super::{Kernel, Machine, operations};
use crate::Isa;
use crate::isa::Kind;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(in crate::matrix) struct Avx2;

/// Calls an intrinsic on both halves.
macro_rules! halves {
    (|$($half:ident = $both:ident),*| $body:expr) => {{
        let low = { $(let $half = $both[0];)* $body };
        let high = { $(let $half = $both[1];)* $body };
        [low, high]
    }};
}

// SAFETY: used only where `Kind::Avx2` was detected.
unsafe impl Machine for Avx2 {
    const ISA: Isa = Isa(Kind::Avx2);
    const ROWS: usize = 4;
    const STRIPS: usize = 1;

    type Bytes = [__m256i; 2];
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];
    type Pairs = [__m256i; 2];

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn enter<K: Kernel>(kernel: K) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run::<Self>() }
    }

    operations! {
        fn prefetch(at: *const u8) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }

        fn bytes(from: *const u8) -> [__m256i; 2] {
            [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())]
        }
        fn store_bytes(to: *mut u8, bytes: [__m256i; 2]) {
            _mm256_storeu_si256(to.cast(), bytes[0]);
            _mm256_storeu_si256(to.add(32).cast(), bytes[1]);
        }
        fn left<const BY>(bytes: [__m256i; 2]) -> [__m256i; 2] { halves!(|b = bytes| _mm256_slli_epi16::<BY>(b)) }
        fn right<const BY>(bytes: [__m256i; 2]) -> [__m256i; 2] { halves!(|b = bytes| _mm256_srli_epi16::<BY>(b)) }
        fn mask(bytes: [__m256i; 2], mask: u8) -> [__m256i; 2] {
            halves!(|b = bytes| _mm256_and_si256(b, _mm256_set1_epi8(mask as i8)))
        }
        fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] { halves!(|a = a, b = b| _mm256_or_si256(a, b)) }

        fn zero_ints() -> [__m256i; 2] { [_mm256_setzero_si256(); 2] }
        fn splat_int(value: i32) -> [__m256i; 2] { [_mm256_set1_epi32(value); 2] }
        fn ints_from_u8(from: *const u8) -> [__m256i; 2] {
            let bytes = _mm_loadu_si128(from.cast());
            [_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(bytes))]
        }
        fn ints_from_i8(from: *const u8) -> [__m256i; 2] {
            let bytes = _mm_loadu_si128(from.cast());
            [_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes))]
        }
        fn dot(sum: [__m256i; 2], bytes: [__m256i; 2], with: *const i8) -> [__m256i; 2] {
            let (with, ones) = (_mm256_set1_epi32(with.cast::<i32>().read_unaligned()), _mm256_set1_epi16(1));
            halves!(|s = sum, b = bytes| _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(b, with), ones)))
        }
        fn signed(bytes: [__m256i; 2]) -> [__m256i; 2] { bytes }
        fn signed_start(_offset: i32) -> [__m256i; 2] { [_mm256_setzero_si256(); 2] }
        // The first factor must be unsigned, so the weights' signs move to the inputs.
        fn dot_signed(sum: [__m256i; 2], bytes: [__m256i; 2], with: *const i8) -> [__m256i; 2] {
            let (with, ones) = (_mm256_set1_epi32(with.cast::<i32>().read_unaligned()), _mm256_set1_epi16(1));
            halves!(|s = sum, b = bytes| {
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(b), _mm256_sign_epi8(with, b));
                _mm256_add_epi32(s, _mm256_madd_epi16(pairs, ones))
            })
        }

        fn pairs_from_u8(from: *const u8) -> [__m256i; 2] {
            [
                _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())),
                _mm256_cvtepu8_epi16(_mm_loadu_si128(from.add(16).cast())),
            ]
        }
        fn pairs(from: *const i16) -> [__m256i; 2] { Self::bytes(from.cast()) }
        fn store_pairs(to: *mut i16, pairs: [__m256i; 2]) { Self::store_bytes(to.cast(), pairs) }
        fn dot_pairs(sum: [__m256i; 2], pairs: [__m256i; 2], with: *const i16) -> [__m256i; 2] {
            let with = _mm256_set1_epi32(with.cast::<i32>().read_unaligned());
            halves!(|s = sum, p = pairs| _mm256_add_epi32(s, _mm256_madd_epi16(p, with)))
        }

        fn zero() -> [__m256; 2] { [_mm256_setzero_ps(); 2] }
        fn splat(value: f32) -> [__m256; 2] { [_mm256_set1_ps(value); 2] }
        fn floats(from: *const f32) -> [__m256; 2] { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
        fn floats_from_f16(from: *const u16) -> [__m256; 2] {
            [_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))]
        }
        fn floats_from_bf16(from: *const u16) -> [__m256; 2] {
            let halves = [_mm_loadu_si128(from.cast()), _mm_loadu_si128(from.add(8).cast())];
            halves!(|h = halves| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(h))))
        }
        fn floats_from_ints(ints: [__m256i; 2]) -> [__m256; 2] { halves!(|i = ints| _mm256_cvtepi32_ps(i)) }
        fn store(to: *mut f32, floats: [__m256; 2]) {
            _mm256_storeu_ps(to, floats[0]);
            _mm256_storeu_ps(to.add(8), floats[1]);
        }
        fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { halves!(|a = a, b = b| _mm256_add_ps(a, b)) }
        fn multiply(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] { halves!(|a = a, b = b| _mm256_mul_ps(a, b)) }
        fn add_product(sum: [__m256; 2], a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            halves!(|s = sum, a = a, b = b| _mm256_fmadd_ps(a, b, s))
        }
        fn subtract_product(sum: [__m256; 2], a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
            halves!(|s = sum, a = a, b = b| _mm256_fnmadd_ps(a, b, s))
        }
    }
}
