//! NEON with the products of bytes: sixteen rows are four vectors. The product instruction is written in assembly, because
//! its intrinsic is not stable yet.

use super::{Kernel, Machine, operations};
use crate::Isa;
use crate::isa::{Kind, f16_to_f32};
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Clone, Copy)]
pub(in crate::matrix) struct Neon;

/// Computes something for each quarter of the sixteen rows.
macro_rules! quarters {
    (|$($one:ident = $four:ident),*| $body:expr) => {
        [
            { $(let $one = $four[0];)* $body },
            { $(let $one = $four[1];)* $body },
            { $(let $one = $four[2];)* $body },
            { $(let $one = $four[3];)* $body },
        ]
    };
}

/// `sum` and, for each of its lanes, the products of four bytes of `a` with those of `b`.
///
/// # Safety
/// The processor must have the instruction.
#[inline(always)]
unsafe fn sdot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

// SAFETY: used only where `Kind::NeonDot` was detected.
unsafe impl Machine for Neon {
    const ISA: Isa = Isa(Kind::NeonDot);
    const PASS: usize = 4;
    const ROWS: usize = 3;
    const STRIPS: usize = 1;

    type Bytes = [uint8x16_t; 4];
    type Ints = [int32x4_t; 4];
    type Floats = [float32x4_t; 4];
    type Pairs = [int16x8_t; 4];

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn enter<K: Kernel>(kernel: K) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run::<Self>() }
    }

    operations! {
        fn prefetch(at: *const u8) {
            asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(readonly, nostack, preserves_flags))
        }

        fn bytes(from: *const u8) -> [uint8x16_t; 4] {
            [vld1q_u8(from), vld1q_u8(from.add(16)), vld1q_u8(from.add(32)), vld1q_u8(from.add(48))]
        }
        fn store_bytes(to: *mut u8, bytes: [uint8x16_t; 4]) {
            for (at, bytes) in bytes.into_iter().enumerate() {
                vst1q_u8(to.add(at * 16), bytes);
            }
        }
        fn left<const BY>(bytes: [uint8x16_t; 4]) -> [uint8x16_t; 4] { quarters!(|b = bytes| vshlq_n_u8::<BY>(b)) }
        fn right<const BY>(bytes: [uint8x16_t; 4]) -> [uint8x16_t; 4] { quarters!(|b = bytes| vshrq_n_u8::<BY>(b)) }
        fn mask(bytes: [uint8x16_t; 4], mask: u8) -> [uint8x16_t; 4] {
            quarters!(|b = bytes| vandq_u8(b, vdupq_n_u8(mask)))
        }
        fn or(a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] { quarters!(|a = a, b = b| vorrq_u8(a, b)) }

        fn zero_ints() -> [int32x4_t; 4] { [vdupq_n_s32(0); 4] }
        fn splat_int(value: i32) -> [int32x4_t; 4] { [vdupq_n_s32(value); 4] }
        fn ints_from_u8(from: *const u8) -> [int32x4_t; 4] {
            let bytes = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            let words = [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)];
            quarters!(|w = words| vreinterpretq_s32_u32(w))
        }
        fn ints_from_i8(from: *const u8) -> [int32x4_t; 4] {
            let bytes = vld1q_s8(from.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
        }
        // Weights of at most 63 are signed bytes as well.
        fn dot(sum: [int32x4_t; 4], bytes: [uint8x16_t; 4], with: *const i8) -> [int32x4_t; 4] {
            let with = vreinterpretq_s8_s32(vdupq_n_s32(with.cast::<i32>().read_unaligned()));
            quarters!(|s = sum, b = bytes| sdot(s, vreinterpretq_s8_u8(b), with))
        }
        fn signed(bytes: [uint8x16_t; 4]) -> [uint8x16_t; 4] { bytes }
        fn signed_start(_offset: i32) -> [int32x4_t; 4] { [vdupq_n_s32(0); 4] }
        fn dot_signed(sum: [int32x4_t; 4], bytes: [uint8x16_t; 4], with: *const i8) -> [int32x4_t; 4] {
            Self::dot(sum, bytes, with)
        }

        fn pairs_from_u8(from: *const u8) -> [int16x8_t; 4] {
            let (first, second) = (vld1q_u8(from), vld1q_u8(from.add(16)));
            let pairs = [
                vmovl_u8(vget_low_u8(first)),
                vmovl_high_u8(first),
                vmovl_u8(vget_low_u8(second)),
                vmovl_high_u8(second),
            ];
            quarters!(|p = pairs| vreinterpretq_s16_u16(p))
        }
        fn pairs(from: *const i16) -> [int16x8_t; 4] {
            [vld1q_s16(from), vld1q_s16(from.add(8)), vld1q_s16(from.add(16)), vld1q_s16(from.add(24))]
        }
        fn store_pairs(to: *mut i16, pairs: [int16x8_t; 4]) {
            for (at, pairs) in pairs.into_iter().enumerate() {
                vst1q_s16(to.add(at * 8), pairs);
            }
        }
        fn dot_pairs(sum: [int32x4_t; 4], pairs: [int16x8_t; 4], with: *const i16) -> [int32x4_t; 4] {
            let with = vreinterpretq_s16_s32(vdupq_n_s32(with.cast::<i32>().read_unaligned()));
            quarters!(|s = sum, p = pairs| {
                let low = vmull_s16(vget_low_s16(p), vget_low_s16(with));
                vaddq_s32(s, vpaddq_s32(low, vmull_high_s16(p, with)))
            })
        }

        fn zero() -> [float32x4_t; 4] { [vdupq_n_f32(0.0); 4] }
        fn splat(value: f32) -> [float32x4_t; 4] { [vdupq_n_f32(value); 4] }
        fn floats(from: *const f32) -> [float32x4_t; 4] {
            [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]
        }
        fn floats_from_f16(from: *const u16) -> [float32x4_t; 4] {
            let wide = from.cast::<[u16; 16]>().read().map(f16_to_f32);
            Self::floats(wide.as_ptr())
        }
        fn floats_from_bf16(from: *const u16) -> [float32x4_t; 4] {
            let (first, second) = (vld1q_u16(from), vld1q_u16(from.add(8)));
            let halves = [vget_low_u16(first), vget_high_u16(first), vget_low_u16(second), vget_high_u16(second)];
            quarters!(|h = halves| vreinterpretq_f32_u32(vshll_n_u16::<16>(h)))
        }
        fn floats_from_ints(ints: [int32x4_t; 4]) -> [float32x4_t; 4] { quarters!(|i = ints| vcvtq_f32_s32(i)) }
        fn store(to: *mut f32, floats: [float32x4_t; 4]) {
            for (at, floats) in floats.into_iter().enumerate() {
                vst1q_f32(to.add(at * 4), floats);
            }
        }
        fn add(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] { quarters!(|a = a, b = b| vaddq_f32(a, b)) }
        fn multiply(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            quarters!(|a = a, b = b| vmulq_f32(a, b))
        }
        fn add_product(sum: [float32x4_t; 4], a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            quarters!(|s = sum, a = a, b = b| vfmaq_f32(s, a, b))
        }
        fn subtract_product(sum: [float32x4_t; 4], a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
            quarters!(|s = sum, a = a, b = b| vfmsq_f32(s, a, b))
        }
    }
}
