//! One segment of attention: which blocks and queries take part, and the order of the steps.

use std::ops::Range;

use super::cells::Form;
use super::score::{Scores, score};
use super::soften::{Softening, soften};
use super::weigh::{Weights, weigh};
use super::widen::widen;
use super::{Cached, Head, Queries, SEGMENT, SPAN};
use crate::aligned::Floats;
use crate::isa::Isa;
use crate::kv::BLOCK;

/// From so many queries on, widening a block costs less than reading it narrow once per tile.
const MANY: usize = 13;

/// Queries whose scores are held at a time, so that they stay in the second-level cache beside a widened segment. A
/// multiple of the largest tile.
const PANEL: usize = 96;

/// Rows of queries before one head of the cache.
pub(super) struct Task<'a> {
    pub(super) head: &'a Head,
    pub(super) first: usize,
    pub(super) queries: Queries,
    pub(super) cached: &'a Cached<'a>,
    /// Queries: rows times group.
    pub(super) count: usize,
    /// What the steps read. Where it is not the cache's own form, the cache is widened first.
    pub(super) form: Form,
}

impl<'a> Task<'a> {
    pub(super) fn new(
        isa: Isa,
        head: &'a Head,
        first: usize,
        rows: usize,
        queries: Queries,
        cached: &'a Cached<'a>,
    ) -> Task<'a> {
        let layout = cached.layout;
        let widths = (layout.key_width(), layout.value_width());
        assert_eq!((head.key_width, head.value_width), widths, "widths of the head and of the cache");
        assert!((first + rows).div_ceil(BLOCK) <= cached.blocks.len(), "too few blocks for {rows} rows at {first}");
        let count = rows * head.group;
        // Plain Rust takes queries one by one, each of which would convert anew.
        let widened = count >= MANY || isa == Isa::PORTABLE;
        let form = if widened { Form::Single } else { layout.kind().into() };
        Task { head, first, queries, cached, count, form }
    }

    /// What a query sees of a segment, counted from the segment's start; empty where it sees nothing.
    pub(super) fn sees(&self, query: usize, segment: usize) -> Range<usize> {
        let Range { start, end } = self.head.sees(self.first + query / self.head.group);
        let origin = segment * SEGMENT;
        let inside = |position: usize| position.saturating_sub(origin).min(SEGMENT);
        inside(start)..inside(end)
    }

    /// What any of some neighbouring queries sees.
    pub(super) fn reach(&self, queries: &Range<usize>, segment: usize) -> Range<usize> {
        self.sees(queries.start, segment).start..self.sees(queries.end - 1, segment).end
    }

    /// Splits queries into tiles of a size that `score` and `weigh` have, leaving no single query if it can be helped.
    /// The narrow forms need registers to convert in, so their tiles are smaller.
    pub(super) fn tiles(&self, queries: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (mut at, end, form) = (queries.start, queries.end, self.form);
        std::iter::from_fn(move || {
            let size = match (end - at, form) {
                (0, _) => return None,
                (left @ 1..=3, _) => left,
                (5, _) => 3,
                (6, Form::Half | Form::Byte) => 3,
                (_, Form::Half | Form::Byte) => 4,
                (4, Form::Single) => 2,
                (7, Form::Single) => 3,
                (_, Form::Single) => 6,
            };
            at += size;
            Some(at - size..at)
        })
    }
}

/// Buffers of a segment's work.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    packed: Floats,
    scores: Floats,
    keys: Floats,
    values: Floats,
}

impl Buffers {
    /// Packs the queries as `score` reads them: tile by tile, a tile's queries side by side, and scaled.
    pub(super) fn prepare(&mut self, task: &Task<'_>) {
        let Head { key_width, group, scale, softcap, .. } = *task.head;
        let packed = self.packed.room(task.count * key_width);
        // Scores come out in powers of two, or where they are capped in parts of the cap.
        let factor = if softcap == 0.0 { scale * std::f32::consts::LOG2_E } else { scale / softcap };
        for tile in panels(task.count).flat_map(|panel| task.tiles(panel)) {
            for (at, query) in tile.clone().enumerate() {
                let (row, member) = (query / group, query % group);
                // SAFETY: `attend_rows` was promised readable rows; `packed` has room for every query.
                unsafe {
                    let from = task.queries.start.add(row * task.queries.stride + member * key_width);
                    let to = packed.add(tile.start * key_width + at);
                    for element in 0..key_width {
                        *to.add(element * tile.len()) = *from.add(element) * factor;
                    }
                }
            }
        }
    }
}

/// Splits all queries into panels.
fn panels(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(PANEL).map(move |start| start..count.min(start + PANEL))
}

/// The blocks of a segment in the form that is read.
pub(super) struct View {
    pub(super) keys: [*const u8; SPAN],
    pub(super) values: [*const u8; SPAN],
    /// The blocks of keys that will be read after this segment.
    pub(super) next: [*const u8; 2],
}

/// Takes a segment: for each query its record (see `fold`) goes to `partial`.
///
/// # Safety
/// See `attend_rows`; `partial` must have room for the records of all queries, and `buffers` be prepared for the task.
pub(super) unsafe fn attend(isa: Isa, task: &Task<'_>, segment: usize, buffers: &mut Buffers, partial: *mut f32) {
    let reach = task.reach(&(0..task.count), segment);
    // SAFETY: the caller's promise.
    let view = unsafe { view(isa, task, segment, reach, buffers) };
    let packed = buffers.packed.room(task.count * task.head.key_width);
    let scores = buffers.scores.room(PANEL.min(task.count) * SEGMENT);
    for queries in panels(task.count) {
        score(isa, &Scores { task, segment, view: &view, packed, queries: queries.clone(), scores });
        soften(isa, &Softening { task, segment, queries: queries.clone(), scores, partial });
        weigh(isa, &Weights { task, segment, view: &view, queries, scores, partial });
    }
}

/// The blocks within `reach`; those outside it are never read, and stand for a neighbour.
///
/// # Safety
/// See `attend_rows`.
unsafe fn view(isa: Isa, task: &Task<'_>, segment: usize, reach: Range<usize>, buffers: &mut Buffers) -> View {
    let Cached { layout, place, blocks } = *task.cached;
    let seen = reach.start / BLOCK..reach.end.div_ceil(BLOCK).max(reach.start / BLOCK + 1);
    let block = |at: usize| {
        let number = segment * SPAN + at.clamp(seen.start, seen.end - 1);
        blocks[number.min(blocks.len() - 1)]
    };
    // SAFETY: a place lies inside its block.
    let keys = std::array::from_fn(|at| unsafe { block(at).add(place.keys) });
    // SAFETY: as above.
    let values = std::array::from_fn(|at| unsafe { block(at).add(place.values) });
    let following = |at: usize| blocks.get((segment + 1) * SPAN + at).map(|block| block.wrapping_add(place.keys));
    let next = std::array::from_fn(|at| following(at).unwrap_or(keys[0]));
    let view = View { keys, values, next };
    if task.form == Form::from(layout.kind()) {
        return view;
    }
    // SAFETY: the blocks seen are readable, and the buffers have room for a segment.
    unsafe {
        let Head { key_width, value_width, .. } = *task.head;
        let wide_keys = buffers.keys.room(SEGMENT * key_width);
        let wide_values = buffers.values.room(SEGMENT * value_width);
        widen(isa, task, &view, seen.clone(), wide_keys, wide_values);
        let wide = |start: *mut f32, width: usize, at: usize| {
            start.add(at.clamp(seen.start, seen.end - 1) * BLOCK * width).cast_const().cast::<u8>()
        };
        View {
            keys: std::array::from_fn(|at| wide(wide_keys, key_width, at)),
            values: std::array::from_fn(|at| wide(wide_values, value_width, at)),
            next: [wide_keys.cast_const().cast(); 2],
        }
    }
}
