//! AVX-512 with VNNI: sixteen rows are one vector, and four products of bytes one instruction.

use super::{Kernel, Machine, operations};
use crate::Isa;
use crate::isa::Kind;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(in crate::matrix) struct Vnni;

// SAFETY: used only where `Kind::Avx512Vnni` was detected.
unsafe impl Machine for Vnni {
    const ISA: Isa = Isa(Kind::Avx512Vnni);
    const ROWS: usize = 6;
    const STRIPS: usize = 2;

    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;
    type Pairs = __m512i;

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn enter<K: Kernel>(kernel: K) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run::<Self>() }
    }

    operations! {
        fn prefetch(at: *const u8) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }

        fn bytes(from: *const u8) -> __m512i { _mm512_loadu_si512(from.cast()) }
        fn store_bytes(to: *mut u8, bytes: __m512i) { _mm512_storeu_si512(to.cast(), bytes) }
        fn left<const BY>(bytes: __m512i) -> __m512i { _mm512_sll_epi16(bytes, _mm_cvtsi32_si128(BY)) }
        fn right<const BY>(bytes: __m512i) -> __m512i { _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(BY)) }
        fn mask(bytes: __m512i, mask: u8) -> __m512i { _mm512_and_si512(bytes, _mm512_set1_epi8(mask as i8)) }
        fn or(a: __m512i, b: __m512i) -> __m512i { _mm512_or_si512(a, b) }

        fn zero_ints() -> __m512i { _mm512_setzero_si512() }
        fn splat_int(value: i32) -> __m512i { _mm512_set1_epi32(value) }
        fn ints_from_u8(from: *const u8) -> __m512i { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) }
        fn ints_from_i8(from: *const u8) -> __m512i { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())) }
        fn dot(sum: __m512i, bytes: __m512i, with: *const i8) -> __m512i {
            _mm512_dpbusd_epi32(sum, bytes, _mm512_set1_epi32(with.cast::<i32>().read_unaligned()))
        }
        // The instruction takes unsigned weights: 128 is added to them here and taken off in `signed_start`.
        fn signed(bytes: __m512i) -> __m512i { _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)) }
        fn signed_start(offset: i32) -> __m512i { _mm512_set1_epi32(offset) }
        fn dot_signed(sum: __m512i, bytes: __m512i, with: *const i8) -> __m512i { Self::dot(sum, bytes, with) }

        fn pairs_from_u8(from: *const u8) -> __m512i { _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast())) }
        fn pairs(from: *const i16) -> __m512i { _mm512_loadu_si512(from.cast()) }
        fn store_pairs(to: *mut i16, pairs: __m512i) { _mm512_storeu_si512(to.cast(), pairs) }
        fn dot_pairs(sum: __m512i, pairs: __m512i, with: *const i16) -> __m512i {
            _mm512_dpwssd_epi32(sum, pairs, _mm512_set1_epi32(with.cast::<i32>().read_unaligned()))
        }

        fn zero() -> __m512 { _mm512_setzero_ps() }
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn floats(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        fn floats_from_f16(from: *const u16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        fn floats_from_bf16(from: *const u16) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn floats_from_ints(ints: __m512i) -> __m512 { _mm512_cvtepi32_ps(ints) }
        fn store(to: *mut f32, floats: __m512) { _mm512_storeu_ps(to, floats) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn multiply(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn add_product(sum: __m512, a: __m512, b: __m512) -> __m512 { _mm512_fmadd_ps(a, b, sum) }
        fn subtract_product(sum: __m512, a: __m512, b: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, sum) }
    }
}
