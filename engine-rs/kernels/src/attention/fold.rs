//! Merging the softmaxes of segments, in their order. What a segment leaves of a query is a record: its weighted values,
//! the maximum its weights are against, and the sum of the weights. A maximum of minus infinity says that the query sees
//! nothing of the segment.

use super::Head;
use crate::isa::per_isa;
use crate::math::{Math, exp2};
use crate::output::Output;

/// Floats of a record.
pub(super) const fn record(value_width: usize) -> usize {
    value_width + 2
}

/// A softmax so far; the maximum is in powers of two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub(super) maximum: f32,
    pub(super) sum: f32,
}

impl Running {
    pub(super) const START: Running = Running { maximum: f32::NEG_INFINITY, sum: 0.0 };

    /// # Safety
    /// `record` must point to a record of this width.
    #[inline(always)]
    pub(super) unsafe fn write(self, record: *mut f32, value_width: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            *record.add(value_width) = self.maximum;
            *record.add(value_width + 1) = self.sum;
        }
    }

    /// # Safety
    /// `record` must point to a record of this width.
    #[inline(always)]
    unsafe fn read(record: *const f32, value_width: usize) -> Running {
        // SAFETY: the caller's promise.
        unsafe { Running { maximum: *record.add(value_width), sum: *record.add(value_width + 1) } }
    }
}

per_isa! {
    /// Takes the records of one segment into `running` and `out`. To be called only with a record for every query, and
    /// with an `out` that has a row for every row of queries.
    pub(super) fn fold(head: &Head, partial: *const f32, running: &mut [Running], out: Output) = fold_for
}

per_isa! {
    /// Divides each output by its sum. To be called under the same conditions as `fold`.
    pub(super) fn finish(head: &Head, running: &[Running], out: Output) = finish_for
}

#[inline(always)]
fn fold_for<L: Math>(head: &Head, partial: *const f32, running: &mut [Running], out: Output) {
    let width = head.value_width;
    for (query, running) in running.iter_mut().enumerate() {
        // SAFETY: there is a record and a place in `out` for every query.
        unsafe {
            let values = partial.add(query * record(width));
            let out = out.row(query / head.group).add(query % head.group * width);
            let segment = Running::read(values, width);
            if segment.maximum == f32::NEG_INFINITY {
                continue;
            }
            if running.maximum == f32::NEG_INFINITY {
                std::ptr::copy_nonoverlapping(values, out, width);
                *running = segment;
                continue;
            }
            let maximum = if segment.maximum > running.maximum { segment.maximum } else { running.maximum };
            let (old, new) = (power::<L>(running.maximum - maximum), power::<L>(segment.maximum - maximum));
            *running = Running { maximum, sum: running.sum * old + segment.sum * new };
            add_scaled::<L>(out, old, values, new, width);
        }
    }
}

/// # Safety
/// `L` must be available.
#[inline(always)]
unsafe fn power<L: Math>(x: f32) -> f32 {
    let mut lanes = [0.0; 16];
    // SAFETY: the caller's promise; no vector has more than 16 lanes.
    unsafe { exp2(L::splat(x)).store(lanes.as_mut_ptr()) };
    lanes[0]
}

/// `out = out * old + values * new`.
///
/// # Safety
/// `L` must be available, and both pointers be valid for `width` floats.
#[inline(always)]
unsafe fn add_scaled<L: Math>(out: *mut f32, old: f32, values: *const f32, new: f32, width: usize) {
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while at + L::N <= width {
            let added = L::load(values.add(at)).mul(L::splat(new));
            added.add_product(L::load(out.add(at)), L::splat(old)).store(out.add(at));
            at += L::N;
        }
        for at in at..width {
            *out.add(at) = *out.add(at) * old + *values.add(at) * new;
        }
    }
}

#[inline(always)]
fn finish_for<L: Math>(head: &Head, running: &[Running], out: Output) {
    let width = head.value_width;
    for (query, running) in running.iter().enumerate() {
        let share = 1.0 / running.sum;
        // SAFETY: there is a place in `out` for every query.
        unsafe {
            let out = out.row(query / head.group).add(query % head.group * width);
            let mut at = 0;
            while at + L::N <= width {
                L::load(out.add(at)).mul(L::splat(share)).store(out.add(at));
                at += L::N;
            }
            for at in at..width {
                *out.add(at) *= share;
            }
        }
    }
}
