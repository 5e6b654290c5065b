//! One layer's attention over the tasks of a batch, on all threads: whole, or in parts that are merged afterwards.

use std::sync::{Mutex, PoisonError};

use quiver_kernels::attention::{AttendScratch, Cached, Head, Queries, attend_rows, attend_segments, merge};
use quiver_kernels::{BLOCK, Isa, KvLayout, Output};

use super::attention::{AttendTask, Part};
use super::rows::SharedRows;
use crate::executor::pool::Pool;
use crate::model::Batch;

pub struct Attention<'a> {
    pub isa: Isa,
    pub head: Head,
    /// Rows that begin with the queries of all heads.
    pub queries: SharedRows,
    pub out: SharedRows,
    /// Between two rows of the queries, and of the results.
    pub stride: (usize, usize),
    pub tasks: &'a [AttendTask],
    /// None: the tasks are not cut.
    pub parts: &'a [Part],
    pub layout: &'a KvLayout,
    /// The layer's number.
    pub number: usize,
    pub blocks: SharedBlocks<'a>,
}

impl Attention<'_> {
    /// `partial` has room for all parts.
    pub fn run(&self, pool: &mut Pool, scratch: &[Mutex<AttendScratch>], partial: &mut [f32]) {
        let scratch = |thread: usize| scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
        if self.parts.is_empty() {
            pool.run(self.tasks.len(), &|task, thread| self.whole(task, &mut scratch(thread)));
            return;
        }
        let room = SharedRows::new(partial, 1);
        pool.run(self.parts.len(), &|part, thread| {
            let part = &self.parts[part];
            // SAFETY: the ranges of two parts have nothing in common, and `partial` has room for all.
            let partial = unsafe { std::slice::from_raw_parts_mut(room.start(part.partial.start), part.partial.len()) };
            self.part(part, &mut scratch(thread), partial);
        });
        let partial = &*partial;
        pool.run(self.tasks.len(), &|task, thread| self.merge(task, &mut scratch(thread), partial));
    }

    fn whole(&self, task: usize, scratch: &mut AttendScratch) {
        let task = &self.tasks[task];
        // SAFETY: rows and heads of a task are its own; the cache was written in the pass before and is only read.
        unsafe {
            let (queries, out) = (self.queries_of(task), self.out_of(task));
            attend_rows(self.isa, &self.head, task.first, task.rows.len(), queries, &self.cached(task), scratch, out);
        }
    }

    fn part(&self, part: &Part, scratch: &mut AttendScratch, partial: &mut [f32]) {
        let task = &self.tasks[part.task];
        let (rows, segments, cached) = (task.rows.len(), part.segments.clone(), self.cached(task));
        // SAFETY: queries and cache were written in the passes before and are only read.
        unsafe {
            let queries = self.queries_of(task);
            attend_segments(self.isa, &self.head, task.first, rows, queries, &cached, segments, scratch, partial);
        }
    }

    fn merge(&self, task: usize, scratch: &mut AttendScratch, partial: &[f32]) {
        let mut own = self.parts.iter().filter(|part| part.task == task).map(|part| part.partial.clone());
        let Some(first) = own.next() else {
            return;
        };
        let whole = first.start..own.next_back().map_or(first.end, |last| last.end);
        let task = &self.tasks[task];
        // SAFETY: rows and heads of a task are its own.
        unsafe { merge(self.isa, &self.head, task.rows.len(), &partial[whole], scratch, self.out_of(task)) };
    }

    fn cached(&self, task: &AttendTask) -> Cached<'_> {
        let place = self.layout.offsets(self.number, task.head);
        Cached { layout: self.layout, place, blocks: self.blocks.of(task.span) }
    }

    fn queries_of(&self, task: &AttendTask) -> Queries {
        let column = task.head * self.head.group * self.head.key_width;
        Queries { start: self.queries.start(task.rows.start).wrapping_add(column), stride: self.stride.0 }
    }

    /// # Safety
    /// As for `Output::new`.
    unsafe fn out_of(&self, task: &AttendTask) -> Output {
        let column = task.head * self.head.group * self.head.value_width;
        // SAFETY: the caller's.
        unsafe { Output::new(self.out.start(task.rows.start).wrapping_add(column), self.stride.1) }
    }
}

/// The blocks of every span, for tasks on all threads.
#[derive(Clone, Copy)]
pub struct SharedBlocks<'a>(pub &'a [Vec<*mut u8>]);

// SAFETY: writes go to slots of rows that only one task has; reads follow in a later job.
unsafe impl Sync for SharedBlocks<'_> {}

impl SharedBlocks<'_> {
    /// Where a row's keys and values go: the block and the slot in it.
    pub fn place_of(&self, batch: &Batch, row: usize) -> (*mut u8, usize) {
        let at = batch.spans.partition_point(|span| span.rows.end <= row);
        let position = batch.positions[row];
        (self.0[at][position / BLOCK], position % BLOCK)
    }

    fn of(&self, span: usize) -> &[*const u8] {
        let blocks = &self.0[span];
        // SAFETY: `*const u8` and `*mut u8` have one layout.
        unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len()) }
    }
}
