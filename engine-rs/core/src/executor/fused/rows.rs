//! Rows of numbers that several threads work on, each on rows or columns of its own, and how a pass over rows is spread.

use std::ops::Range;

use crate::executor::pool::Pool;

/// Fewer rows than this are not worth waking another thread for.
const LEAST_ROWS: usize = 4;

/// Mutable rows that several threads share.
#[derive(Clone, Copy)]
pub struct SharedRows {
    start: *mut f32,
    stride: usize,
    rows: usize,
}

// SAFETY: every access goes through `row`, whose caller vouches that no two threads use one row at a time.
unsafe impl Send for SharedRows {}
// SAFETY: as above.
unsafe impl Sync for SharedRows {}

impl SharedRows {
    pub fn new(values: &mut [f32], stride: usize) -> SharedRows {
        SharedRows { start: values.as_mut_ptr(), stride, rows: values.len() / stride }
    }

    /// Where a row begins, for tasks that share it and use columns of their own.
    pub fn start(&self, row: usize) -> *mut f32 {
        assert!(row < self.rows);
        self.start.wrapping_add(row * self.stride)
    }

    /// # Safety
    /// While the slice lives nobody else uses this row, and the values that `new` was given still live.
    #[allow(clippy::mut_from_ref, reason = "that is what it is for: see the safety rule")]
    pub unsafe fn row(&self, row: usize) -> &mut [f32] {
        // SAFETY: inside the values of `new`, and alone by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start(row), self.stride) }
    }
}

/// Calls `work` for every row, on all threads where that pays.
pub fn for_each_row(pool: &mut Pool, rows: usize, work: &(dyn Fn(usize) + Sync)) {
    let tasks = if rows < LEAST_ROWS { 1 } else { (pool.threads() * 4).min(rows) };
    pool.run(tasks, &|task, _| share(rows, task, tasks).for_each(work));
}

/// The rows of one of `tasks` equal tasks.
fn share(rows: usize, task: usize, tasks: usize) -> Range<usize> {
    rows * task / tasks..rows * (task + 1) / tasks
}
