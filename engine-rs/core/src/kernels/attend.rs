//! Causal attention of a few query rows over one key-value head. A row walks the pages of its sequence from the first
//! one with a running softmax, so its result depends on its position and on what is cached before it, and on nothing
//! else: not on the chunk it came in, nor on the rows beside it.

use super::dot::products_for;
use super::isa::{Lanes, per_isa};

/// Positions in a page of the key-value cache.
pub const PAGE: usize = 32;

/// A page's keys and values for one layer and head, `PAGE` rows each.
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
    scores: Vec<f32>,
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
    let Scratch {
        keys,
        values,
        scores,
        running,
    } = scratch;
    running.clear();
    running.resize(
        count,
        Running {
            maximum: f32::NEG_INFINITY,
            sum: 0.0,
        },
    );
    scores.resize(count * PAGE, 0.0);
    out.fill(0.0);
    for (number, page) in pages.iter().enumerate() {
        let start = number * PAGE;
        // Rows before the page do not see it; they come first.
        let unseeing = start
            .saturating_sub(first)
            .saturating_mul(head.group)
            .min(count);
        let (keys, values) = widen::<L>(page, keys, values);
        products_for::<L>(
            &queries[unseeing * head.key_width..],
            keys,
            head.key_width,
            scores,
            PAGE,
        );
        for query in unseeing..count {
            let visible = (first + query / head.group + 1 - start).min(PAGE);
            let scores = &mut scores[(query - unseeing) * PAGE..][..visible];
            let out = &mut out[query * head.value_width..][..head.value_width];
            let fade = soften(scores, head.scale, &mut running[query]);
            add_weighted::<L>(scores, values, fade, out);
        }
    }
    for (out, running) in out.chunks_exact_mut(head.value_width).zip(running) {
        out.iter_mut().for_each(|value| *value /= running.sum);
    }
}

/// The page as f32: itself, or widened into the buffers.
#[inline(always)]
fn widen<'a, L: Lanes>(
    page: &Page<'a>,
    keys: &'a mut Vec<f32>,
    values: &'a mut Vec<f32>,
) -> (&'a [f32], &'a [f32]) {
    match *page {
        Page::F32 { keys, values } => (keys, values),
        Page::F16 {
            keys: narrow_keys,
            values: narrow_values,
        } => {
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

/// Turns scores into weights against the running maximum; returns the factor by which earlier output must fade.
#[inline(always)]
fn soften(scores: &mut [f32], scale: f32, running: &mut Running) -> f32 {
    let mut maximum = running.maximum;
    for score in scores.iter_mut() {
        *score *= scale;
        maximum = if *score > maximum { *score } else { maximum };
    }
    let fade = exp(running.maximum - maximum);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = exp(*score - maximum);
    }
    for score in scores.iter() {
        sum += *score;
    }
    running.maximum = maximum;
    running.sum = running.sum * fade + sum;
    fade
}

/// `out = out * fade + sum of weights[i] * values[i]`, in the order of the rows.
#[inline(always)]
fn add_weighted<L: Lanes>(weights: &[f32], values: &[f32], fade: f32, out: &mut [f32]) {
    let width = out.len();
    assert!(weights.len() * width <= values.len());
    let mut at = 0;
    while at + 4 * L::N <= width {
        add_weighted_strip::<L, 4>(weights, values, fade, &mut out[at..], at, width);
        at += 4 * L::N;
    }
    while at + L::N <= width {
        add_weighted_strip::<L, 1>(weights, values, fade, &mut out[at..], at, width);
        at += L::N;
    }
    for at in at..width {
        let mut sum = out[at] * fade;
        for (weight, row) in weights.iter().zip(values.chunks_exact(width)) {
            sum += weight * row[at];
        }
        out[at] = sum;
    }
}

/// `S` vectors of the output, from column `at` of the values.
#[inline(always)]
fn add_weighted_strip<L: Lanes, const S: usize>(
    weights: &[f32],
    values: &[f32],
    fade: f32,
    out: &mut [f32],
    at: usize,
    width: usize,
) {
    let out = &mut out[..S * L::N];
    // SAFETY: `per_isa!` runs this only where `L` is available; the caller checked that `values` has a row of `width` for
    // each weight, and `at + S * L::N <= width`.
    unsafe {
        let fade = L::splat(fade);
        let mut sums = [L::zero(); S];
        for (part, sum) in sums.iter_mut().enumerate() {
            *sum = L::zero().add_product(L::load(out.as_ptr().add(part * L::N)), fade);
        }
        for (row, weight) in weights.iter().enumerate() {
            let weight = L::splat(*weight);
            let values = values.as_ptr().add(row * width + at);
            for (part, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add_product(weight, L::load(values.add(part * L::N)));
            }
        }
        for (part, sum) in sums.iter().enumerate() {
            sum.store(out.as_mut_ptr().add(part * L::N));
        }
    }
}

/// e^x for x <= 0, to about one unit in the last place, in plain arithmetic that vectorises. Below -87 it is e^-87,
/// which is nothing beside the maximum's 1. NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer, which then sits in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first exact in few bits (Cody and Waite).
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let power = shifted - ROUND;
    let r = (x - power * LN2_HIGH) - power * LN2_LOW;
    // Minimax polynomial of Cephes' expf.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = (p * r) * r + r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    p * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use crate::testing::Noise;

    const EXP_TOLERANCE: f32 = 3e-7;
    const ATTENTION_TOLERANCE: f32 = 1e-5;

    #[test]
    fn exp_is_close() {
        for step in 0..87_000 {
            let x = step as f32 / -1000.0;
            let expected = (x as f64).exp() as f32;
            assert!(
                (exp(x) / expected - 1.0).abs() < EXP_TOLERANCE,
                "{x}: {} {expected}",
                exp(x)
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }

    struct Case {
        head: Head,
        queries: Vec<f32>,
        keys: Vec<f32>,
        values: Vec<f32>,
    }

    impl Case {
        fn new(length: usize, head: Head) -> Case {
            let mut noise = Noise::new(length as u64);
            let padded = length.next_multiple_of(PAGE);
            Case {
                head,
                queries: noise.floats(length * head.group * head.key_width),
                keys: noise.floats(padded * head.key_width),
                values: noise.floats(padded * head.value_width),
            }
        }

        fn pages(&self, length: usize) -> Vec<Page<'_>> {
            let keys = self.keys.chunks(PAGE * self.head.key_width);
            let values = self.values.chunks(PAGE * self.head.value_width);
            let pages = keys
                .zip(values)
                .map(|(keys, values)| Page::F32 { keys, values });
            pages.take(length.div_ceil(PAGE)).collect()
        }

        fn run(&self, isa: Isa, first: usize, rows: usize) -> Vec<f32> {
            let per_row = self.head.group * self.head.key_width;
            let mut out = vec![f32::NAN; rows * self.head.group * self.head.value_width];
            let queries = &self.queries[first * per_row..][..rows * per_row];
            attend(
                isa,
                self.head,
                first,
                queries,
                &self.pages(first + rows),
                &mut Scratch::default(),
                &mut out,
            );
            out
        }

        fn reference(&self, query: usize) -> Vec<f32> {
            let Head {
                key_width,
                value_width,
                group,
                scale,
            } = self.head;
            let q = &self.queries[query * key_width..][..key_width];
            let seen = query / group + 1;
            let keys = self.keys.chunks(key_width).take(seen);
            let weights: Vec<f64> = keys
                .map(|key| {
                    key.iter()
                        .zip(q)
                        .map(|(k, q)| *k as f64 * *q as f64)
                        .sum::<f64>()
                })
                .map(|score| (score * scale as f64).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            (0..value_width)
                .map(|at| {
                    weights
                        .iter()
                        .enumerate()
                        .map(|(i, w)| w * self.values[i * value_width + at] as f64)
                        .sum()
                })
                .map(|value: f64| (value / sum) as f32)
                .collect()
        }
    }

    const HEAD: Head = Head {
        key_width: 24,
        value_width: 75,
        group: 3,
        scale: 0.7,
    };

    #[test]
    fn attention_matches_the_reference() {
        let case = Case::new(70, HEAD);
        for isa in Isa::available() {
            for (query, got) in case.run(isa, 0, 70).chunks(HEAD.value_width).enumerate() {
                for (got, expected) in got.iter().zip(case.reference(query)) {
                    assert!(
                        (got - expected).abs() < ATTENTION_TOLERANCE,
                        "{isa:?} {query}: {got} {expected}"
                    );
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
                assert_eq!(
                    case.run(isa, first, rows),
                    whole[first * per_row..][..rows * per_row],
                    "{isa:?} {first}"
                );
            }
        }
    }

    #[test]
    fn halves_widen_to_the_same_result() {
        let mut case = Case::new(40, HEAD);
        let narrow = |values: &[f32]| {
            values
                .iter()
                .map(|v| half::f16::from_f32(*v).to_bits())
                .collect::<Vec<u16>>()
        };
        let (keys, values) = (narrow(&case.keys), narrow(&case.values));
        let wide = |bits: &[u16]| {
            bits.iter()
                .map(|b| half::f16::from_bits(*b).to_f32())
                .collect()
        };
        (case.keys, case.values) = (wide(&keys), wide(&values));
        let pages = keys
            .chunks(PAGE * HEAD.key_width)
            .zip(values.chunks(PAGE * HEAD.value_width));
        let pages: Vec<Page<'_>> = pages
            .map(|(keys, values)| Page::F16 { keys, values })
            .collect();
        for isa in Isa::available() {
            let mut out = vec![0.0; 40 * HEAD.group * HEAD.value_width];
            attend(
                isa,
                HEAD,
                0,
                &case.queries,
                &pages,
                &mut Scratch::default(),
                &mut out,
            );
            assert_eq!(out, case.run(isa, 0, 40));
        }
    }
}
