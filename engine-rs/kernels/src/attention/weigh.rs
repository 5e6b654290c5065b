//! Weights times values. Each number of an output is one chain of additions over the positions that its query sees, in
//! their order; positions it does not see are left out and not multiplied by 0, for they may hold anything.

use std::ops::Range;

use super::SEGMENT;
use super::cells::{Byte, Cell, Form, Half, Single};
use super::fold::record;
use super::segment::{Task, View};
use crate::isa::{f16_to_f32, per_isa};
use crate::kv::{BLOCK, SHARED};
use crate::math::{Math, prefetch};

/// The rows of `scores` as `soften` left them; sums go to the records in `partial`.
pub(super) struct Weights<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) segment: usize,
    pub(super) view: &'a View,
    pub(super) queries: Range<usize>,
    pub(super) scores: *const f32,
    pub(super) partial: *mut f32,
}

per_isa! {
    /// To be called only while the promises of `attend_rows` hold.
    pub(super) fn weigh(weights: &Weights<'_>) = weigh_for
}

#[inline(always)]
fn weigh_for<L: Math>(weights: &Weights<'_>) {
    let Weights { task, segment, queries, partial, .. } = weights;
    let width = task.head.value_width;
    for query in queries.clone() {
        // SAFETY: there is a record for each query.
        unsafe { partial.add(query * record(width)).write_bytes(0, width) };
    }
    for tile in task.tiles(queries.clone()) {
        for piece in pieces(task, *segment, tile) {
            match task.form {
                Form::Half => narrow::<L, Half>(weights, piece),
                Form::Byte => narrow::<L, Byte>(weights, piece),
                Form::Single => wide::<L>(weights, &piece),
            }
        }
    }
}

/// Some queries and positions that all of them see.
struct Piece {
    queries: Range<usize>,
    seen: Range<usize>,
}

/// Neighbouring queries see almost the same: a tile takes what all of them see together, and what only some see one by
/// one before and after it.
#[inline(always)]
fn pieces<'a>(task: &'a Task<'_>, segment: usize, tile: Range<usize>) -> impl Iterator<Item = Piece> + use<'a> {
    let shared = task.sees(tile.end - 1, segment).start..task.sees(tile.start, segment).end;
    // Where they share nothing, each query takes all it sees before the place of the tile.
    let shared = if shared.is_empty() { SEGMENT..SEGMENT } else { shared };
    let count = tile.len();
    (0..2 * count + 1).map(move |at| {
        if at == count {
            return Piece { queries: tile.clone(), seen: shared.clone() };
        }
        let query = tile.start + if at < count { at } else { at - count - 1 };
        let Range { start, end } = task.sees(query, segment);
        let seen = if at < count { start..end.min(shared.start) } else { start.max(shared.end)..end };
        Piece { queries: query..query + 1, seen }
    })
}

/// Block by block, so that memory is read in its order whatever the strips.
#[inline(always)]
fn narrow<L: Math, T: Cell>(weights: &Weights<'_>, piece: Piece) {
    let Piece { queries, seen } = piece;
    let mut start = seen.start;
    while start < seen.end {
        let end = seen.end.min((start / BLOCK + 1) * BLOCK);
        let piece = Piece { queries: queries.clone(), seen: start..end };
        // Plain Rust never reads narrow numbers; leaving tiles out saves compiling them.
        match queries.len() {
            _ if L::REGISTERS == 0 => unreachable!("narrow numbers in plain Rust"),
            1 => columns::<L, T, 1>(weights, &piece),
            2 => columns::<L, T, 2>(weights, &piece),
            3 => columns::<L, T, 3>(weights, &piece),
            _ => columns::<L, T, 4>(weights, &piece),
        }
        start = end;
    }
}

#[inline(always)]
fn wide<L: Math>(weights: &Weights<'_>, piece: &Piece) {
    if piece.seen.is_empty() {
        return;
    }
    match piece.queries.len() {
        1 => columns::<L, Single, 1>(weights, piece),
        2 => columns::<L, Single, 2>(weights, piece),
        3 => columns::<L, Single, 3>(weights, piece),
        _ => columns::<L, Single, 6>(weights, piece),
    }
}

/// All columns of `Q` queries, in strips as wide as the registers allow.
#[inline(always)]
fn columns<L: Math, T: Cell, const Q: usize>(weights: &Weights<'_>, piece: &Piece) {
    let width = weights.task.head.value_width;
    let mut at = 0;
    if L::REGISTERS >= 32 || L::REGISTERS > 0 && Q <= 3 {
        while at + 4 * L::N <= width {
            strip::<L, T, Q, 4>(weights, piece, at);
            at += 4 * L::N;
        }
    } else if L::REGISTERS > 0 {
        while at + 2 * L::N <= width {
            strip::<L, T, Q, 2>(weights, piece, at);
            at += 2 * L::N;
        }
    }
    while at + L::N <= width {
        strip::<L, T, Q, 1>(weights, piece, at);
        at += L::N;
    }
    for query in piece.queries.clone() {
        for at in at..width {
            column::<T>(weights, query, piece.seen.clone(), at);
        }
    }
}

/// `S` vectors of columns from `at` on.
#[inline(always)]
fn strip<L: Math, T: Cell, const Q: usize, const S: usize>(weights: &Weights<'_>, piece: &Piece, at: usize) {
    let Weights { task, view, queries, scores, partial, .. } = weights;
    let (width, first, seen) = (task.head.value_width, piece.queries.start, &piece.seen);
    // SAFETY: `per_isa!` runs this only where `L` is available; `at + S * L::N <= width`, positions below `SEGMENT` lie in
    // the blocks of the view, and every query has a row of scores and a record.
    unsafe {
        let records = partial.add(first * record(width) + at);
        let scores = scores.add((first - queries.start) * SEGMENT);
        let mut sums = [[L::zero(); S]; Q];
        for (q, sums) in sums.iter_mut().enumerate() {
            for (s, sum) in sums.iter_mut().enumerate() {
                *sum = L::load(records.add(q * record(width) + s * L::N));
            }
        }
        for block in seen.start / BLOCK..seen.end.div_ceil(BLOCK) {
            let start = seen.start.max(block * BLOCK);
            let end = seen.end.min(block * BLOCK + BLOCK);
            let cells = view.values[block];
            let ahead = view.values.get(block + 2).copied().unwrap_or(view.next[block % 2]);
            let scales = Scales::<2>::new::<L, T>(cells, ahead, width, at, S);
            let skipped = (start % BLOCK * width + at) * T::BYTES;
            let (mut from, mut ahead) = (cells.add(skipped), ahead.wrapping_add(skipped));
            for position in start..end {
                let mut values = [L::zero(); S];
                for (s, value) in values.iter_mut().enumerate() {
                    let cells = T::load::<L>(from.add(s * L::N * T::BYTES));
                    *value = if T::SCALED { cells.mul(scales.of::<L>(at, s, position)) } else { cells };
                    if (s * L::N * T::BYTES).is_multiple_of(64) {
                        prefetch(ahead.wrapping_add(s * L::N * T::BYTES));
                    }
                }
                from = from.add(width * T::BYTES);
                ahead = ahead.wrapping_add(width * T::BYTES);
                for (q, sums) in sums.iter_mut().enumerate() {
                    let weight = L::splat(*scores.add(q * SEGMENT + position));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = sum.add_product(weight, value);
                    }
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (s, sum) in sums.iter().enumerate() {
                sum.store(records.add(q * record(width) + s * L::N));
            }
        }
    }
}

/// The widened scales of a strip's columns in one block: `G` groups of columns at most.
struct Scales<const G: usize>([[f32; BLOCK]; G]);

impl<const G: usize> Scales<G> {
    /// # Safety
    /// `L` must be available, and `cells` be the values of a block, `width` wide. `ahead` are those to be read soon.
    #[inline(always)]
    unsafe fn new<L: Math, T: Cell>(
        cells: *const u8,
        ahead: *const u8,
        width: usize,
        at: usize,
        vectors: usize,
    ) -> Self {
        let mut scales = [[0.0; BLOCK]; G];
        if T::SCALED {
            for (group, scales) in scales.iter_mut().take((vectors * L::N).div_ceil(SHARED)).enumerate() {
                let offset = width * BLOCK + (at / SHARED + group) * BLOCK * 2;
                prefetch(ahead.wrapping_add(offset));
                for slot in (0..BLOCK).step_by(L::N) {
                    // SAFETY: the caller's promise; the scales of a group are a block long.
                    unsafe {
                        let from = cells.add(offset).cast::<u16>().add(slot);
                        L::load_f16(from).store(scales.as_mut_ptr().add(slot));
                    }
                }
            }
        }
        Scales(scales)
    }

    /// The scale of vector `s` of the strip that starts at column `at`.
    ///
    /// # Safety
    /// `L` must be available, and `s` be below the `vectors` given to `new`.
    #[inline(always)]
    unsafe fn of<L: Math>(&self, at: usize, s: usize, position: usize) -> L {
        let group = (at % SHARED + s * L::N) / SHARED;
        // SAFETY: the caller's promise.
        unsafe { L::splat(*self.0.get_unchecked(group).get_unchecked(position % BLOCK)) }
    }
}

/// One column of one query, for those that fill no vector.
#[inline(always)]
fn column<T: Cell>(weights: &Weights<'_>, query: usize, seen: Range<usize>, at: usize) {
    let Weights { task, view, queries, scores, partial, .. } = weights;
    let width = task.head.value_width;
    // SAFETY: as in `strip`.
    unsafe {
        let scores = scores.add((query - queries.start) * SEGMENT);
        let sum = partial.add(query * record(width) + at);
        for position in seen {
            let (cells, slot) = (view.values[position / BLOCK], position % BLOCK);
            let mut value = T::one(cells.add((slot * width + at) * T::BYTES));
            if T::SCALED {
                let scale = cells.add(width * BLOCK).cast::<u16>().add(at / SHARED * BLOCK + slot);
                value *= f16_to_f32(scale.read());
            }
            *sum += *scores.add(position) * value;
        }
    }
}
