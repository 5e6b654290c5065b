//! The machine in plain Rust: for processors without one of their own, and what the others are compared with.

use super::{Kernel, Machine, operations};
use crate::Isa;
use crate::isa::{Kind, f16_to_f32};

#[derive(Clone, Copy)]
pub(in crate::matrix) struct Portable;

#[inline(always)]
fn dot(mut sum: [i32; 16], rows: [[i32; 4]; 16], with: [i8; 4]) -> [i32; 16] {
    for (sum, row) in sum.iter_mut().zip(rows) {
        for (byte, with) in row.iter().zip(with) {
            *sum = sum.wrapping_add(byte.wrapping_mul(i32::from(with)));
        }
    }
    sum
}

#[inline(always)]
fn rows(bytes: [u8; 64], widen: impl Fn(u8) -> i32) -> [[i32; 4]; 16] {
    let mut rows = [[0; 4]; 16];
    for (row, bytes) in rows.iter_mut().zip(bytes.as_chunks::<4>().0) {
        for (wide, byte) in row.iter_mut().zip(bytes) {
            *wide = widen(*byte);
        }
    }
    rows
}

#[inline(always)]
fn fused(mut sum: [f32; 16], a: [f32; 16], b: [f32; 16], sign: f32) -> [f32; 16] {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum += sign * a * b;
    }
    sum
}

// SAFETY: plain Rust, available everywhere.
unsafe impl Machine for Portable {
    const ISA: Isa = Isa(Kind::Portable);
    const ROWS: usize = 4;
    const STRIPS: usize = 1;

    type Bytes = [u8; 64];
    type Ints = [i32; 16];
    type Floats = [f32; 16];
    type Pairs = [[i16; 2]; 16];

    #[inline(never)]
    unsafe fn enter<K: Kernel>(kernel: K) {
        // SAFETY: the caller vouches for the kernel.
        unsafe { kernel.run::<Self>() }
    }

    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}

    operations! {
        fn bytes(from: *const u8) -> [u8; 64] { from.cast::<[u8; 64]>().read() }
        fn store_bytes(to: *mut u8, bytes: [u8; 64]) { to.cast::<[u8; 64]>().write(bytes) }
        fn left<const BY>(bytes: [u8; 64]) -> [u8; 64] { bytes.map(|byte| byte << BY) }
        fn right<const BY>(bytes: [u8; 64]) -> [u8; 64] { bytes.map(|byte| byte >> BY) }
        fn mask(bytes: [u8; 64], mask: u8) -> [u8; 64] { bytes.map(|byte| byte & mask) }
        fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
            let mut both = a;
            for (both, b) in both.iter_mut().zip(b) {
                *both |= b;
            }
            both
        }

        fn zero_ints() -> [i32; 16] { [0; 16] }
        fn splat_int(value: i32) -> [i32; 16] { [value; 16] }
        fn ints_from_u8(from: *const u8) -> [i32; 16] { from.cast::<[u8; 16]>().read().map(i32::from) }
        fn ints_from_i8(from: *const u8) -> [i32; 16] { from.cast::<[i8; 16]>().read().map(i32::from) }
        fn dot(sum: [i32; 16], bytes: [u8; 64], with: *const i8) -> [i32; 16] {
            dot(sum, rows(bytes, i32::from), with.cast::<[i8; 4]>().read())
        }
        fn signed(bytes: [u8; 64]) -> [u8; 64] { bytes }
        fn signed_start(_offset: i32) -> [i32; 16] { [0; 16] }
        fn dot_signed(sum: [i32; 16], bytes: [u8; 64], with: *const i8) -> [i32; 16] {
            dot(sum, rows(bytes, |byte| i32::from(byte as i8)), with.cast::<[i8; 4]>().read())
        }

        fn pairs_from_u8(from: *const u8) -> [[i16; 2]; 16] {
            from.cast::<[[u8; 2]; 16]>().read().map(|pair| pair.map(i16::from))
        }
        fn pairs(from: *const i16) -> [[i16; 2]; 16] { from.cast::<[[i16; 2]; 16]>().read() }
        fn store_pairs(to: *mut i16, pairs: [[i16; 2]; 16]) { to.cast::<[[i16; 2]; 16]>().write(pairs) }
        fn dot_pairs(sum: [i32; 16], pairs: [[i16; 2]; 16], with: *const i16) -> [i32; 16] {
            let with = with.cast::<[i16; 2]>().read().map(i32::from);
            let mut sum = sum;
            for (sum, [a, b]) in sum.iter_mut().zip(pairs) {
                *sum = sum.wrapping_add(i32::from(a) * with[0] + i32::from(b) * with[1]);
            }
            sum
        }

        fn zero() -> [f32; 16] { [0.0; 16] }
        fn splat(value: f32) -> [f32; 16] { [value; 16] }
        fn floats(from: *const f32) -> [f32; 16] { from.cast::<[f32; 16]>().read() }
        fn floats_from_f16(from: *const u16) -> [f32; 16] { from.cast::<[u16; 16]>().read().map(f16_to_f32) }
        fn floats_from_bf16(from: *const u16) -> [f32; 16] {
            from.cast::<[u16; 16]>().read().map(|half| f32::from_bits(u32::from(half) << 16))
        }
        fn floats_from_ints(ints: [i32; 16]) -> [f32; 16] { ints.map(|int| int as f32) }
        fn store(to: *mut f32, floats: [f32; 16]) { to.cast::<[f32; 16]>().write(floats) }
        fn add(a: [f32; 16], b: [f32; 16]) -> [f32; 16] { fused(a, b, [1.0; 16], 1.0) }
        fn multiply(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
            let mut product = a;
            for (product, b) in product.iter_mut().zip(b) {
                *product *= b;
            }
            product
        }
        fn add_product(sum: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] { fused(sum, a, b, 1.0) }
        fn subtract_product(sum: [f32; 16], a: [f32; 16], b: [f32; 16]) -> [f32; 16] { fused(sum, a, b, -1.0) }
    }
}
