//! Widens a segment of the cache once for many queries. A number times its scale is rounded the same here and where the
//! cache is read as it is.

use std::ops::Range;

use super::Head;
use super::cells::{Byte, Cell, Form, Half};
use super::segment::{Task, View};
use crate::isa::{Isa, f16_to_f32, per_isa};
use crate::kv::{BLOCK, SHARED};
use crate::math::Math;

/// # Safety
/// The blocks `seen` of the view must be readable, and the buffers have room for all blocks of a segment.
pub(super) unsafe fn widen(
    isa: Isa,
    task: &Task<'_>,
    view: &View,
    seen: Range<usize>,
    keys: *mut f32,
    values: *mut f32,
) {
    let (form, Head { key_width, value_width, .. }) = (task.cached.layout.kind().into(), *task.head);
    for block in seen {
        // SAFETY: the caller's promise.
        unsafe {
            widen_keys(isa, form, view.keys[block], key_width, keys.add(block * BLOCK * key_width));
            widen_values(isa, form, view.values[block], value_width, values.add(block * BLOCK * value_width));
        }
    }
}

per_isa! {
    fn widen_keys(form: Form, from: *const u8, width: usize, to: *mut f32) = widen_keys_for
}

per_isa! {
    fn widen_values(form: Form, from: *const u8, width: usize, to: *mut f32) = widen_values_for
}

#[inline(always)]
fn widen_keys_for<L: Math>(form: Form, from: *const u8, width: usize, to: *mut f32) {
    match form {
        Form::Byte => keys_of::<L, Byte>(from, width, to),
        Form::Half => keys_of::<L, Half>(from, width, to),
        Form::Single => {}
    }
}

#[inline(always)]
fn widen_values_for<L: Math>(form: Form, from: *const u8, width: usize, to: *mut f32) {
    match form {
        Form::Byte => values_of::<L, Byte>(from, width, to),
        Form::Half => values_of::<L, Half>(from, width, to),
        Form::Single => {}
    }
}

#[inline(always)]
fn keys_of<L: Math, T: Cell>(from: *const u8, width: usize, to: *mut f32) {
    for element in 0..width {
        for slot in (0..BLOCK).step_by(L::N) {
            let at = element * BLOCK + slot;
            // SAFETY: `per_isa!` runs this only where `L` is available; `widen` was promised room.
            unsafe {
                let mut key = T::load::<L>(from.add(at * T::BYTES));
                if T::SCALED {
                    let scale = from.add(width * BLOCK).cast::<u16>().add(element / SHARED * BLOCK + slot);
                    key = key.mul(L::load_f16(scale));
                }
                key.store(to.add(at));
            }
        }
    }
}

#[inline(always)]
fn values_of<L: Math, T: Cell>(from: *const u8, width: usize, to: *mut f32) {
    for slot in 0..BLOCK {
        for start in (0..width).step_by(SHARED) {
            // SAFETY: as in `keys_of`.
            unsafe {
                let scale = if T::SCALED {
                    f16_to_f32(from.add(width * BLOCK).cast::<u16>().add(start / SHARED * BLOCK + slot).read())
                } else {
                    1.0
                };
                let end = width.min(start + SHARED);
                let mut column = start;
                while column + L::N <= end {
                    let at = slot * width + column;
                    let value = T::load::<L>(from.add(at * T::BYTES));
                    let value = if T::SCALED { value.mul(L::splat(scale)) } else { value };
                    value.store(to.add(at));
                    column += L::N;
                }
                for at in slot * width + column..slot * width + end {
                    let value = T::one(from.add(at * T::BYTES));
                    *to.add(at) = if T::SCALED { value * scale } else { value };
                }
            }
        }
    }
}
