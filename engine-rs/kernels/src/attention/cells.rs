//! The numbers of a cache, one type per kind: how a vector of them is read. Everything above is written once over these.

use crate::isa::f16_to_f32;
use crate::kv::KvType;
use crate::math::Math;

pub(super) trait Cell: Copy {
    const BYTES: usize;
    /// Whether numbers are multiples of the scales that follow them.
    const SCALED: bool;

    /// # Safety
    /// `from` must be valid for `L::N` numbers of this kind, and `L` available.
    unsafe fn load<L: Math>(from: *const u8) -> L;

    /// # Safety
    /// `from` must be valid for one number of this kind.
    unsafe fn one(from: *const u8) -> f32;
}

#[derive(Clone, Copy)]
pub(super) struct Half;

#[derive(Clone, Copy)]
pub(super) struct Single;

#[derive(Clone, Copy)]
pub(super) struct Byte;

impl Cell for Half {
    const BYTES: usize = 2;
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<L: Math>(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_f16(from.cast()) }
    }

    #[inline(always)]
    unsafe fn one(from: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        f16_to_f32(unsafe { from.cast::<u16>().read() })
    }
}

impl Cell for Single {
    const BYTES: usize = 4;
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<L: Math>(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn one(from: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<f32>().read() }
    }
}

impl Cell for Byte {
    const BYTES: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<L: Math>(from: *const u8) -> L {
        // SAFETY: the caller's promise.
        unsafe { L::load_i8(from.cast()) }
    }

    #[inline(always)]
    unsafe fn one(from: *const u8) -> f32 {
        // SAFETY: the caller's promise.
        f32::from(unsafe { from.cast::<i8>().read() })
    }
}

/// What `score` and `weigh` read: the cache's own numbers, or singles that they were widened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Half,
    Single,
    Byte,
}

impl From<KvType> for Form {
    fn from(kind: KvType) -> Form {
        match kind {
            KvType::F16 => Form::Half,
            KvType::F32 => Form::Single,
            KvType::Q8 => Form::Byte,
        }
    }
}
