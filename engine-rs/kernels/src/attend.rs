//! Causal attention of a few query rows over one key-value head. A row walks the pages of its sequence from the first
//! one with a running softmax, so its result depends on its position and on what is cached before it, and on nothing
//! else: not on the chunk it came in, nor on the rows beside it.

use super::exp::exp;
use super::isa::{Lanes, per_isa};

/// Positions in a page of the key-value cache.
pub const PAGE: usize = 32;

/// A page's keys and values for one layer and head: keys `[key_width, PAGE]`, so that a vector can hold positions, and
/// values `[PAGE, value_width]`.
#[derive(Debug, Clone, Copy)]
pub enum Page<'a> {
    F16 { keys: &'a [u16], values: &'a [u16] },
    F32 { keys: &'a [f32], values: &'a [f32] },
}

/// The shape of one head's work: `group` query heads share the key-value head.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub key_width: usize,
    pub value_width: usize,
    pub group: usize,
    pub scale: f32,
}

/// Buffers that one thread reuses from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    running: Vec<Running>,
}

/// The softmax so far of one query.
#[derive(Debug, Clone, Copy)]
struct Running {
    maximum: f32,
    sum: f32,
}

per_isa! {
    /// Queries `[rows, group, key_width]`, the first of them at position `first`, over the cached `pages`, into `out`
    /// `[rows, group, value_width]`.
    pub fn attend(head: Head, first: usize, queries: &[f32], pages: &[Page<'_>], scratch: &mut Scratch, out: &mut [f32])
        = attend_for
}

#[inline(always)]
fn attend_for<L: Lanes>(
    head: Head,
    first: usize,
    queries: &[f32],
    pages: &[Page<'_>],
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let count = queries.len() / head.key_width;
    let Scratch { keys, values, running } = scratch;
    running.clear();
    running.resize(count, Running { maximum: f32::NEG_INFINITY, sum: 0.0 });
    out.fill(0.0);
    for (number, page) in pages.iter().enumerate() {
        let start = number * PAGE;
        let (keys, values) = widen::<L>(page, keys, values);
        let view = View { head, first, start, keys, values };
        // Rows before the page do not see it; they come first.
        let mut query = start.saturating_sub(first).saturating_mul(head.group).min(count);
        while query + 4 <= count {
            view.tile::<L, 4>(query, queries, running, out);
            query += 4;
        }
        while query < count {
            view.tile::<L, 1>(query, queries, running, out);
            query += 1;
        }
    }
    for (out, running) in out.chunks_exact_mut(head.value_width).zip(running) {
        out.iter_mut().for_each(|value| *value /= running.sum);
    }
}

/// The page as f32: itself, or widened into the buffers.
#[inline(always)]
fn widen<'a, L: Lanes>(page: &Page<'a>, keys: &'a mut Vec<f32>, values: &'a mut Vec<f32>) -> (&'a [f32], &'a [f32]) {
    match *page {
        Page::F32 { keys, values } => (keys, values),
        Page::F16 { keys: narrow_keys, values: narrow_values } => {
            widen_into::<L>(narrow_keys, keys);
            widen_into::<L>(narrow_values, values);
            (keys, values)
        }
    }
}

#[inline(always)]
fn widen_into<L: Lanes>(from: &[u16], to: &mut Vec<f32>) {
    to.resize(from.len(), 0.0);
    // A page has 32 rows, so its length is a multiple of every vector's.
    for (from, to) in from.chunks_exact(L::N).zip(to.chunks_exact_mut(L::N)) {
        // SAFETY: `per_isa!` runs this only where `L` is available; both chunks hold `L::N` elements.
        unsafe { L::load_f16(from.as_ptr()).store(to.as_mut_ptr()) };
    }
}

/// One page before the queries of a task.
#[derive(Clone, Copy)]
struct View<'a> {
    head: Head,
    first: usize,
    start: usize,
    keys: &'a [f32],
    values: &'a [f32],
}

impl View<'_> {
    /// Takes the page into the running softmax of `Q` queries.
    #[inline(always)]
    fn tile<L: Lanes, const Q: usize>(self, query: usize, queries: &[f32], running: &mut [Running], out: &mut [f32]) {
        let Head { key_width, value_width, group, scale } = self.head;
        let visible = |query: usize| (self.first + query / group + 1 - self.start).min(PAGE);
        let mut scores = [[0.0; PAGE]; Q];
        score::<L, Q>(&queries[query * key_width..], self.keys, key_width, &mut scores);
        let mut fades = [0.0; Q];
        for (at, (scores, fade)) in scores.iter_mut().zip(&mut fades).enumerate() {
            *fade = soften(scores, visible(query + at), scale, &mut running[query + at]);
        }
        let out = &mut out[query * value_width..][..Q * value_width];
        if visible(query) == visible(query + Q - 1) {
            add_weighted::<L, Q>(&scores, visible(query), self.values, fades, out);
        } else {
            for (at, out) in out.chunks_exact_mut(value_width).enumerate() {
                add_weighted::<L, 1>(&[scores[at]], visible(query + at), self.values, [fades[at]], out);
            }
        }
    }
}

/// `scores[q][position]` = query `q` times the key at the position, whose elements lie `PAGE` apart: a vector holds
/// positions, and sums run along the width.
#[inline(always)]
fn score<L: Lanes, const Q: usize>(queries: &[f32], keys: &[f32], width: usize, scores: &mut [[f32; PAGE]; Q]) {
    let (queries, keys) = (&queries[..Q * width], &keys[..PAGE * width]);
    let mut at = 0;
    while at < PAGE {
        // SAFETY: `per_isa!` runs this only where `L` is available; `at + 2 * L::N <= PAGE`, since `PAGE` is a multiple
        // of two vectors of any width, and so every load and store is inside a row of `PAGE`.
        unsafe {
            let mut sums = [[L::zero(); 2]; Q];
            for (element, row) in keys.chunks_exact(PAGE).enumerate() {
                let row = row.as_ptr().add(at);
                let (near, far) = (L::load(row), L::load(row.add(L::N)));
                for (q, sums) in sums.iter_mut().enumerate() {
                    let query = L::splat(*queries.get_unchecked(q * width + element));
                    sums[0] = sums[0].add_product(query, near);
                    sums[1] = sums[1].add_product(query, far);
                }
            }
            for (scores, sums) in scores.iter_mut().zip(sums) {
                sums[0].store(scores.as_mut_ptr().add(at));
                sums[1].store(scores.as_mut_ptr().add(at + L::N));
            }
        }
        at += 2 * L::N;
    }
}

/// Turns the first `visible` scores into weights against the running maximum and the others into 0; returns the factor
/// by which earlier output must fade. Sums and maxima run in eight lanes, whatever the processor.
#[inline(always)]
fn soften(scores: &mut [f32; PAGE], visible: usize, scale: f32, running: &mut Running) -> f32 {
    for (position, score) in scores.iter_mut().enumerate() {
        *score = if position < visible { *score * scale } else { f32::NEG_INFINITY };
    }
    let maximum = lanes(scores, running.maximum, |a, b| if b > a { b } else { a });
    for (position, score) in scores.iter_mut().enumerate() {
        let weight = exp(*score - maximum);
        *score = if position < visible { weight } else { 0.0 };
    }
    let fade = exp(running.maximum - maximum);
    running.maximum = maximum;
    running.sum = running.sum * fade + lanes(scores, 0.0, |a, b| a + b);
    fade
}

/// Folds 32 values in eight lanes and then the lanes.
#[inline(always)]
fn lanes(values: &[f32; PAGE], start: f32, fold: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let mut folded = [start; 8];
    for values in values.as_chunks::<8>().0 {
        for (folded, value) in folded.iter_mut().zip(values) {
            *folded = fold(*folded, *value);
        }
    }
    let [a, b, c, d, e, f, g, h] = folded;
    fold(fold(fold(a, e), fold(c, g)), fold(fold(b, f), fold(d, h)))
}

/// `out[q] = out[q] * fades[q] + sum of weights[q][i] * values[i]`, over the first `rows` rows in their order. Rows that a
/// query does not see are not multiplied by 0 but left out: they may hold anything.
#[inline(always)]
fn add_weighted<L: Lanes, const Q: usize>(
    weights: &[[f32; PAGE]; Q],
    rows: usize,
    values: &[f32],
    fades: [f32; Q],
    out: &mut [f32],
) {
    let width = out.len() / Q;
    assert!(rows <= PAGE && rows * width <= values.len());
    let mut at = 0;
    while at + 2 * L::N <= width {
        // SAFETY: `at + 2 * L::N <= width`, and the rest was asserted.
        unsafe { add_weighted_strip::<L, Q, 2>(weights, rows, values, fades, out, at, width) };
        at += 2 * L::N;
    }
    while at + L::N <= width {
        // SAFETY: `at + L::N <= width`, and the rest was asserted.
        unsafe { add_weighted_strip::<L, Q, 1>(weights, rows, values, fades, out, at, width) };
        at += L::N;
    }
    for (q, out) in out.chunks_exact_mut(width).enumerate() {
        for at in at..width {
            let mut sum = out[at] * fades[q];
            for (weight, row) in weights[q][..rows].iter().zip(values.chunks_exact(width)) {
                sum += weight * row[at];
            }
            out[at] = sum;
        }
    }
}

/// `S` vectors of each output row, from column `at`.
///
/// # Safety
/// `L` must be available, `at + S * L::N <= width`, `values` hold `rows` rows and `out` `Q` rows of `width`.
#[inline(always)]
unsafe fn add_weighted_strip<L: Lanes, const Q: usize, const S: usize>(
    weights: &[[f32; PAGE]; Q],
    rows: usize,
    values: &[f32],
    fades: [f32; Q],
    out: &mut [f32],
    at: usize,
    width: usize,
) {
    // SAFETY: the caller's promise covers every pointer.
    unsafe {
        let mut sums = [[L::zero(); S]; Q];
        for (q, sums) in sums.iter_mut().enumerate() {
            let fade = L::splat(fades[q]);
            for (part, sum) in sums.iter_mut().enumerate() {
                let from = out.as_ptr().add(q * width + at + part * L::N);
                *sum = L::zero().add_product(L::load(from), fade);
            }
        }
        for row in 0..rows {
            let mut parts = [L::zero(); S];
            for (part, value) in parts.iter_mut().enumerate() {
                *value = L::load(values.as_ptr().add(row * width + at + part * L::N));
            }
            for (weights, sums) in weights.iter().zip(&mut sums) {
                let weight = L::splat(*weights.get_unchecked(row));
                for (sum, value) in sums.iter_mut().zip(parts) {
                    *sum = sum.add_product(weight, value);
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (part, sum) in sums.iter().enumerate() {
                sum.store(out.as_mut_ptr().add(q * width + at + part * L::N));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    const ATTENTION_TOLERANCE: f32 = 1e-5;

    struct Case {
        head: Head,
        queries: Vec<f32>,
        keys: Vec<f32>,
        /// The keys again, as pages hold them.
        pages: Vec<f32>,
        values: Vec<f32>,
    }

    /// Rows of keys as a page holds them.
    fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
        let pages = rows.chunks(PAGE * width);
        pages.flat_map(|page| (0..PAGE * width).map(|at| page[at % PAGE * width + at / PAGE])).collect()
    }

    impl Case {
        fn new(length: usize, head: Head) -> Case {
            let mut noise = Noise::new(length as u64);
            let padded = length.next_multiple_of(PAGE);
            let keys = noise.floats(padded * head.key_width);
            Case {
                head,
                queries: noise.floats(length * head.group * head.key_width),
                pages: transposed(&keys, head.key_width),
                keys,
                values: noise.floats(padded * head.value_width),
            }
        }

        fn pages(&self, length: usize) -> Vec<Page<'_>> {
            let keys = self.pages.chunks(PAGE * self.head.key_width);
            let values = self.values.chunks(PAGE * self.head.value_width);
            let pages = keys.zip(values).map(|(keys, values)| Page::F32 { keys, values });
            pages.take(length.div_ceil(PAGE)).collect()
        }

        fn run(&self, isa: Isa, first: usize, rows: usize) -> Vec<f32> {
            let per_row = self.head.group * self.head.key_width;
            let mut out = vec![f32::NAN; rows * self.head.group * self.head.value_width];
            let queries = &self.queries[first * per_row..][..rows * per_row];
            attend(isa, self.head, first, queries, &self.pages(first + rows), &mut Scratch::default(), &mut out);
            out
        }

        fn reference(&self, query: usize) -> Vec<f32> {
            let Head { key_width, value_width, group, scale } = self.head;
            let q = &self.queries[query * key_width..][..key_width];
            let seen = query / group + 1;
            let keys = self.keys.chunks(key_width).take(seen);
            let weights: Vec<f64> = keys
                .map(|key| key.iter().zip(q).map(|(k, q)| *k as f64 * *q as f64).sum::<f64>())
                .map(|score| (score * scale as f64).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            (0..value_width)
                .map(|at| weights.iter().enumerate().map(|(i, w)| w * self.values[i * value_width + at] as f64).sum())
                .map(|value: f64| (value / sum) as f32)
                .collect()
        }
    }

    const HEAD: Head = Head { key_width: 24, value_width: 75, group: 3, scale: 0.7 };

    #[test]
    fn attention_matches_the_reference() {
        let case = Case::new(70, HEAD);
        for isa in Isa::available() {
            for (query, got) in case.run(isa, 0, 70).chunks(HEAD.value_width).enumerate() {
                for (got, expected) in got.iter().zip(case.reference(query)) {
                    assert!((got - expected).abs() < ATTENTION_TOLERANCE, "{isa:?} {query}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_query_ignores_its_chunk() {
        let case = Case::new(70, HEAD);
        let per_row = HEAD.group * HEAD.value_width;
        for isa in Isa::available() {
            let whole = case.run(isa, 0, 70);
            for (first, rows) in [(0, 1), (31, 2), (32, 1), (5, 40), (69, 1)] {
                assert_eq!(case.run(isa, first, rows), whole[first * per_row..][..rows * per_row], "{isa:?} {first}");
            }
        }
    }

    #[test]
    fn unseen_rows_may_hold_anything() {
        let whole = Case::new(40, HEAD);
        let mut spoiled = Case::new(40, HEAD);
        spoiled.values[20 * HEAD.value_width..].fill(f32::NAN);
        spoiled.pages[..PAGE * HEAD.key_width]
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| at % PAGE >= 20)
            .for_each(|(_, key)| *key = f32::INFINITY);
        for isa in Isa::available() {
            assert_eq!(spoiled.run(isa, 0, 20), whole.run(isa, 0, 20), "{isa:?}");
        }
    }

    #[test]
    fn halves_widen_to_the_same_result() {
        let mut case = Case::new(40, HEAD);
        let narrow = |values: &[f32]| values.iter().map(|v| half::f16::from_f32(*v).to_bits()).collect::<Vec<u16>>();
        let (keys, values) = (narrow(&case.pages), narrow(&case.values));
        let wide = |bits: &[u16]| bits.iter().map(|b| half::f16::from_bits(*b).to_f32()).collect();
        (case.pages, case.values) = (wide(&keys), wide(&values));
        let pages = keys.chunks(PAGE * HEAD.key_width).zip(values.chunks(PAGE * HEAD.value_width));
        let pages: Vec<Page<'_>> = pages.map(|(keys, values)| Page::F16 { keys, values }).collect();
        for isa in Isa::available() {
            let mut out = vec![0.0; 40 * HEAD.group * HEAD.value_width];
            attend(isa, HEAD, 0, &case.queries, &pages, &mut Scratch::default(), &mut out);
            assert_eq!(out, case.run(isa, 0, 40));
        }
    }
}
