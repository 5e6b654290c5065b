//! From scores to weights: the softmax of each query over what it sees of a segment, against its own maximum there. Scores
//! are in powers of two.

use std::ops::Range;

use super::SEGMENT;
use super::fold::{Running, record};
use super::segment::Task;
use crate::isa::per_isa;
use crate::kv::BLOCK;
use crate::math::{Math, exp2};
use crate::rows::tanh;

/// The rows of `scores` that `score` left, and the records of all queries, of which maximum and sum are filled in.
pub(super) struct Softening<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) segment: usize,
    pub(super) queries: Range<usize>,
    pub(super) scores: *mut f32,
    pub(super) partial: *mut f32,
}

per_isa! {
    /// To be called only while the promises of `attend_rows` hold.
    pub(super) fn soften(softening: &Softening<'_>) = soften_for
}

#[inline(always)]
fn soften_for<L: Math>(softening: &Softening<'_>) {
    let Softening { task, segment, queries, scores, partial } = softening;
    let (width, softcap) = (task.head.value_width, task.head.softcap);
    for (row, query) in queries.clone().enumerate() {
        // SAFETY: there is a row of scores for each query of the panel, and nobody else holds it.
        let scores = unsafe { &mut *scores.add(row * SEGMENT).cast::<[f32; SEGMENT]>() };
        let seen = task.sees(query, *segment);
        let running = if seen.is_empty() { Running::START } else { soften_row::<L>(scores, seen, softcap) };
        // SAFETY: there is a record for each query.
        unsafe { running.write(partial.add(query * record(width)), width) };
    }
}

#[inline(always)]
fn soften_row<L: Math>(scores: &mut [f32; SEGMENT], seen: Range<usize>, softcap: f32) -> Running {
    if softcap != 0.0 {
        let cap = softcap * std::f32::consts::LOG2_E;
        for score in &mut scores[seen.clone()] {
            *score = cap * tanh(*score);
        }
    }
    // Whole blocks, so that the lanes in which a row adds up depend on positions alone.
    let whole = seen.start - seen.start % BLOCK..seen.end.next_multiple_of(BLOCK);
    scores[whole.start..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..whole.end].fill(f32::NEG_INFINITY);
    let scores = &mut scores[whole];
    // SAFETY: `per_isa!` runs this only where `L` is available; a block is a multiple of two vectors of any width.
    unsafe {
        let mut most = [L::splat(f32::NEG_INFINITY); 2];
        for pair in scores.chunks_exact(2 * L::N) {
            most[0] = L::load(pair.as_ptr()).larger(most[0]);
            most[1] = L::load(pair.as_ptr().add(L::N)).larger(most[1]);
        }
        let maximum = most[0].larger(most[1]).largest();
        let down = L::splat(-maximum);
        let mut sums = [L::zero(); 2];
        for pair in scores.chunks_exact_mut(2 * L::N) {
            let (near, far) = (pair.as_mut_ptr(), pair.as_mut_ptr().add(L::N));
            let weights = [exp2(L::load(near).add(down)), exp2(L::load(far).add(down))];
            weights[0].store(near);
            weights[1].store(far);
            sums = [sums[0].add(weights[0]), sums[1].add(weights[1])];
        }
        Running { maximum, sum: sums[0].add(sums[1]).sum() }
    }
}
