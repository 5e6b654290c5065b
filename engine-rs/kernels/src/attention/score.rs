//! Scores: queries times keys. A vector holds positions, so each score is one chain of additions along the key, whatever
//! the tile it is computed in.

use std::ops::Range;

use super::SEGMENT;
use super::cells::{Byte, Cell, Form, Half, Single};
use super::segment::{Task, View};
use crate::isa::per_isa;
use crate::kv::{BLOCK, SHARED};
use crate::math::{Math, prefetch};

/// The scores of some queries with a segment: row `i` of `scores`, `SEGMENT` wide, is that of query `queries.start + i`.
/// Only what a query sees is meant; the rest of its row may hold anything.
pub(super) struct Scores<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) segment: usize,
    pub(super) view: &'a View,
    pub(super) packed: *const f32,
    pub(super) queries: Range<usize>,
    pub(super) scores: *mut f32,
}

per_isa! {
    /// To be called only while the promises of `attend_rows` hold.
    pub(super) fn score(scores: &Scores<'_>) = score_for
}

#[inline(always)]
fn score_for<L: Math>(scores: &Scores<'_>) {
    let Scores { task, segment, queries, .. } = scores;
    let reach = task.reach(queries, *segment);
    let step = 4 * L::N;
    let mut at = reach.start - reach.start % step;
    while at < reach.end {
        for tile in task.tiles(queries.clone()) {
            let seen = task.reach(&tile, *segment);
            if seen.start < at + step && at < seen.end {
                match task.form {
                    Form::Half => narrow::<L, Half>(scores, tile, at),
                    Form::Byte => narrow::<L, Byte>(scores, tile, at),
                    Form::Single => wide::<L>(scores, tile, at),
                }
            }
        }
        at += step;
    }
}

#[inline(always)]
fn narrow<L: Math, T: Cell>(scores: &Scores<'_>, tile: Range<usize>, at: usize) {
    // Plain Rust never reads narrow numbers; leaving tiles out saves compiling them.
    match tile.len() {
        _ if L::REGISTERS == 0 => unreachable!("narrow numbers in plain Rust"),
        1 => four_vectors::<L, T, 1>(scores, tile.start, at),
        2 => four_vectors::<L, T, 2>(scores, tile.start, at),
        3 => four_vectors::<L, T, 3>(scores, tile.start, at),
        _ => four_vectors::<L, T, 4>(scores, tile.start, at),
    }
}

#[inline(always)]
fn wide<L: Math>(scores: &Scores<'_>, tile: Range<usize>, at: usize) {
    match tile.len() {
        1 => four_vectors::<L, Single, 1>(scores, tile.start, at),
        2 => four_vectors::<L, Single, 2>(scores, tile.start, at),
        3 => four_vectors::<L, Single, 3>(scores, tile.start, at),
        _ => four_vectors::<L, Single, 6>(scores, tile.start, at),
    }
}

/// Four vectors of positions: at once, or in two halves where registers are few, or one by one in plain Rust.
#[inline(always)]
fn four_vectors<L: Math, T: Cell, const Q: usize>(scores: &Scores<'_>, first: usize, at: usize) {
    if L::REGISTERS >= 32 || L::REGISTERS > 0 && Q == 1 {
        tile::<L, T, Q, 4>(scores, first, at);
    } else if L::REGISTERS > 0 {
        for at in [at, at + 2 * L::N] {
            tile::<L, T, Q, 2>(scores, first, at);
        }
    } else {
        for at in (at..at + 4 * L::N).step_by(L::N) {
            tile::<L, T, Q, 1>(scores, first, at);
        }
    }
}

/// `Q` queries from `first` on times `P` vectors of positions from `at` on.
#[inline(always)]
fn tile<L: Math, T: Cell, const Q: usize, const P: usize>(scores: &Scores<'_>, first: usize, at: usize) {
    let Scores { task, view, packed, queries, scores, .. } = scores;
    let width = task.head.key_width;
    let part = |j: usize| ((at + j * L::N) / BLOCK, (at + j * L::N) % BLOCK);
    // SAFETY: `per_isa!` runs this only where `L` is available; `at + P * L::N <= SEGMENT`, so every vector of positions
    // lies in a block of the view; the packed queries and the scores have room for the tile.
    unsafe {
        let mut query = packed.add(first * width);
        let mut cells: [*const u8; P] = std::array::from_fn(|j| view.keys[part(j).0].add(part(j).1 * T::BYTES));
        let scales: [*const u16; P] =
            std::array::from_fn(|j| view.keys[part(j).0].add(width * BLOCK * T::BYTES).cast::<u16>().add(part(j).1));
        let following: [*const u8; P] = std::array::from_fn(|j| {
            let block = part(j).0 + (P * L::N).div_ceil(BLOCK);
            view.keys.get(block).copied().unwrap_or(view.values[part(j).0 % 2])
        });
        let mut ahead = following;
        let mut sums = [[L::zero(); P]; Q];
        let mut scale = [L::zero(); P];
        for element in 0..width {
            if T::SCALED && element % SHARED == 0 {
                for j in 0..P {
                    scale[j] = L::load_f16(scales[j].add(element));
                    prefetch(following[j].wrapping_add(width * BLOCK + element * 2));
                }
            }
            let mut keys = [L::zero(); P];
            for j in 0..P {
                let key = T::load::<L>(cells[j]);
                keys[j] = if T::SCALED { key.mul(scale[j]) } else { key };
                cells[j] = cells[j].add(BLOCK * T::BYTES);
                // One request per cache line is enough.
                if (j * L::N % BLOCK * T::BYTES).is_multiple_of(64) {
                    prefetch(ahead[j]);
                    ahead[j] = ahead[j].wrapping_add(BLOCK * T::BYTES);
                }
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                let query = L::splat(*query.add(q));
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = sum.add_product(query, key);
                }
            }
            query = query.add(Q);
        }
        for (q, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(scores.add((first - queries.start + q) * SEGMENT + at + j * L::N));
            }
        }
    }
}
