//! Causal attention of some query rows over one key-value head of the cache. The softmax of a query runs over fixed
//! segments of positions, each from scratch, and their results are merged in order. What a row gets therefore depends on
//! its position and on what is cached up to it, and on nothing else: not on the chunk it came in, nor the rows beside
//! it, nor the threads the segments were spread over.
//!
//! A segment goes in three steps, a file each: `score` (queries times keys), `soften` (scores to weights), `weigh`
//! (weights times values). Few queries read the cache as it is; many have it widened once (`widen`), which gives the same
//! numbers. `fold` merges segments.

mod cells;
mod fold;
mod score;
mod segment;
mod soften;
#[cfg(test)]
mod tests;
mod weigh;
mod widen;

use std::ops::Range;

use super::aligned::Floats;
use super::isa::Isa;
use super::kv::{BLOCK, KvLayout, KvPlace};
use super::output::Output;
use fold::{Running, finish, fold};
use segment::Task;

/// Positions of a segment: small enough that its widened keys and values stay in the second-level cache.
pub const SEGMENT: usize = 256;

/// Blocks of a segment.
const SPAN: usize = SEGMENT / BLOCK;

/// The shape of one head's work: `group` query heads share the key-value head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    pub key_width: usize,
    pub value_width: usize,
    pub group: usize,
    pub scale: f32,
    /// Scaled scores become `softcap * tanh(score / softcap)`; 0: they stay.
    pub softcap: f32,
    /// A query at position p sees `p - window + 1..=p`; 0: it sees all up to p.
    pub window: usize,
}

impl Head {
    /// The positions that a query at `position` sees.
    fn sees(&self, position: usize) -> Range<usize> {
        let from = if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) };
        from..position + 1
    }

    /// The segments that rows at `first..first + rows` see any position of.
    pub fn segments(&self, first: usize, rows: usize) -> Range<usize> {
        if rows == 0 {
            return 0..0;
        }
        self.sees(first).start / SEGMENT..(first + rows).div_ceil(SEGMENT)
    }

    /// Floats that one segment's result of `rows` rows takes.
    pub fn partial_len(&self, rows: usize) -> usize {
        rows * self.group * fold::record(self.value_width)
    }
}

/// Query rows: the `group` heads of row `r`, `key_width` numbers each, lie together at `start + r * stride`.
#[derive(Debug, Clone, Copy)]
pub struct Queries {
    pub start: *const f32,
    pub stride: usize,
}

/// One head of a sequence in the cache. Block `i` holds positions `32 i..`; blocks that no row sees are never read.
#[derive(Debug, Clone, Copy)]
pub struct Cached<'a> {
    pub layout: &'a KvLayout,
    pub place: KvPlace,
    pub blocks: &'a [*const u8],
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub struct AttendScratch {
    segment: segment::Buffers,
    partial: Floats,
    running: Vec<Running>,
}

/// Attention of rows at positions `first..first + rows`; row `r` of `out` gets its `group` heads of `value_width` numbers.
///
/// # Panics
/// If the head's widths are not the layout's, or there are too few blocks.
///
/// # Safety
/// The rows of `queries` must be readable and those of `out` writable, the blocks that are seen must be readable blocks of
/// the layout, with all positions up to the last row's stored and aligned to 64 bytes.
#[allow(clippy::too_many_arguments)]
pub unsafe fn attend_rows(
    isa: Isa,
    head: &Head,
    first: usize,
    rows: usize,
    queries: Queries,
    cached: &Cached<'_>,
    scratch: &mut AttendScratch,
    out: Output,
) {
    let AttendScratch { segment, partial, running } = scratch;
    let task = Task::new(isa, head, first, rows, queries, cached);
    let partial = partial.room(head.partial_len(rows));
    running.clear();
    running.resize(rows * head.group, Running::START);
    segment.prepare(&task);
    for number in head.segments(first, rows) {
        // SAFETY: the caller's promise; `partial` has room for the records of all queries.
        unsafe { segment::attend(isa, &task, number, segment, partial) };
        fold(isa, head, partial, running, out);
    }
    finish(isa, head, running, out);
}

/// The results of some `segments` of the same attention, to be merged later: `partial` holds `partial_len(rows)` floats
/// for each, in order.
///
/// # Panics
/// As `attend_rows`, or if `partial` has not that length.
///
/// # Safety
/// As for `attend_rows`.
#[allow(clippy::too_many_arguments)]
pub unsafe fn attend_segments(
    isa: Isa,
    head: &Head,
    first: usize,
    rows: usize,
    queries: Queries,
    cached: &Cached<'_>,
    segments: Range<usize>,
    scratch: &mut AttendScratch,
    partial: &mut [f32],
) {
    let task = Task::new(isa, head, first, rows, queries, cached);
    let length = head.partial_len(rows);
    let all = head.segments(first, rows);
    assert!(all.start <= segments.start && segments.end <= all.end, "{segments:?} are not all of {all:?}");
    assert_eq!(partial.len(), segments.len() * length, "room for {segments:?} of {rows} rows");
    scratch.segment.prepare(&task);
    for (number, partial) in segments.zip(partial.chunks_exact_mut(length)) {
        // SAFETY: the caller's promise; `partial` has room for the records of all queries.
        unsafe { segment::attend(isa, &task, number, &mut scratch.segment, partial.as_mut_ptr()) };
    }
}

/// Merges what `attend_segments` gave for all of `head.segments(first, rows)`, in order, into what `attend_rows` gives.
///
/// # Panics
/// If `partial` is not a whole number of segments.
///
/// # Safety
/// The rows of `out` must be writable.
pub unsafe fn merge(isa: Isa, head: &Head, rows: usize, partial: &[f32], scratch: &mut AttendScratch, out: Output) {
    let length = head.partial_len(rows);
    assert!(partial.len().is_multiple_of(length.max(1)), "{} floats are no whole segments of {length}", partial.len());
    let running = &mut scratch.running;
    running.clear();
    running.resize(rows * head.group, Running::START);
    for partial in partial.chunks_exact(length.max(1)) {
        fold(isa, head, partial.as_ptr(), running, out);
    }
    finish(isa, head, running, out);
}
