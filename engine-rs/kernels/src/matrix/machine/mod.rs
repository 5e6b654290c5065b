//! The vector operations that matrix kernels are written in. A machine works on sixteen weight rows at a time: bytes come
//! as 64, four neighbours of each row; integers and floats as one per row. Kernels are generic over it; `enter` is the
//! one place where a kernel is compiled for an instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
pub(super) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(super) use vnni::Vnni;

use crate::Isa;

/// Something to compute on a machine. `run` must be `#[inline(always)]`, so that it is compiled within `Machine::enter`.
pub(super) trait Kernel {
    /// # Safety
    /// The machine must be available, and what the kernel's fields point to must be valid.
    unsafe fn run<M: Machine>(self);
}

/// # Safety
/// Every method may be called only within `enter` of a machine that is available; pointers must be valid for what is
/// read or written. Bytes, pairs and floats of tiles and scratch memory are aligned to 32 bytes at least.
pub(super) unsafe trait Machine: Copy + 'static {
    const ISA: Isa;
    /// Input rows and strips of a register tile.
    const ROWS: usize;
    const STRIPS: usize;

    type Bytes: Copy;
    type Ints: Copy;
    type Floats: Copy;
    /// Two 16-bit integers for each row.
    type Pairs: Copy;

    unsafe fn enter<K: Kernel>(kernel: K);
    unsafe fn prefetch(at: *const u8);

    unsafe fn bytes(from: *const u8) -> Self::Bytes;
    unsafe fn store_bytes(to: *mut u8, bytes: Self::Bytes);
    /// Shifts; bits may cross into the neighbouring byte and have to be masked.
    unsafe fn left<const BY: i32>(bytes: Self::Bytes) -> Self::Bytes;
    unsafe fn right<const BY: i32>(bytes: Self::Bytes) -> Self::Bytes;
    unsafe fn mask(bytes: Self::Bytes, mask: u8) -> Self::Bytes;
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    unsafe fn zero_ints() -> Self::Ints;
    unsafe fn splat_int(value: i32) -> Self::Ints;
    unsafe fn ints_from_u8(from: *const u8) -> Self::Ints;
    unsafe fn ints_from_i8(from: *const u8) -> Self::Ints;
    /// Adds to each row the products of its four bytes, 0 to 63, with the four at `with`, -127 to 127.
    unsafe fn dot(sum: Self::Ints, bytes: Self::Bytes, with: *const i8) -> Self::Ints;
    /// Signed bytes in the form `dot_signed` wants them in.
    unsafe fn signed(bytes: Self::Bytes) -> Self::Bytes;
    /// What a sum of `dot_signed` starts from, given -128 times the sum of the inputs.
    unsafe fn signed_start(offset: i32) -> Self::Ints;
    unsafe fn dot_signed(sum: Self::Ints, bytes: Self::Bytes, with: *const i8) -> Self::Ints;

    unsafe fn pairs_from_u8(from: *const u8) -> Self::Pairs;
    unsafe fn pairs(from: *const i16) -> Self::Pairs;
    unsafe fn store_pairs(to: *mut i16, pairs: Self::Pairs);
    /// Adds to each row the products of its pair with the two at `with`.
    unsafe fn dot_pairs(sum: Self::Ints, pairs: Self::Pairs, with: *const i16) -> Self::Ints;

    unsafe fn zero() -> Self::Floats;
    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn floats(from: *const f32) -> Self::Floats;
    unsafe fn floats_from_f16(from: *const u16) -> Self::Floats;
    unsafe fn floats_from_bf16(from: *const u16) -> Self::Floats;
    unsafe fn floats_from_ints(ints: Self::Ints) -> Self::Floats;
    unsafe fn store(to: *mut f32, floats: Self::Floats);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `sum + a * b`, fused where the instruction set fuses.
    unsafe fn add_product(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `sum - a * b`, fused likewise.
    unsafe fn subtract_product(sum: Self::Floats, a: Self::Floats, b: Self::Floats) -> Self::Floats;
}

/// Defines a machine's methods. All have the trait's conditions for safety.
macro_rules! operations {
    ($(fn $name:ident $(<const $by:ident>)? ($($arg:ident: $ty:ty),*) $(-> $out:ty)? { $($body:tt)* })*) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe, reason = "some need nothing unsafe")]
            unsafe fn $name $(<const $by: i32>)? ($($arg: $ty),*) $(-> $out)? {
                // SAFETY: the caller keeps the conditions of `Machine`.
                unsafe { $($body)* }
            }
        )*
    };
}
use operations;
