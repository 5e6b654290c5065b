//! Scans over the logits of a whole vocabulary, which has 100,000 tokens and more: what sampling does for every token of
//! every stream. NaN counts as impossible, an infinity as the largest number.

use super::exp::exp;
use super::isa::{Lanes, per_isa};

/// Values folded side by side, so that the loop becomes vector code on every processor.
const WIDE: usize = 32;
/// Below this an exponential is 0 beside the most likely token's 1.
const NOTHING: f32 = -87.0;

per_isa! {
    /// The largest logit; negative infinity where none is usable.
    pub fn largest(logits: &[f32], out: &mut f32) = largest_for
}

per_isa! {
    /// `weights = exp((logits - maximum) / temperature)`, and the sum of each run of `weights.len() / sums.len()`, rounded
    /// up, of them. `maximum` is finite and no logit is larger, `temperature` positive.
    pub fn weigh(logits: &[f32], maximum: f32, temperature: f32, weights: &mut [f32], sums: &mut [f64]) = weigh_for
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    // False for NaN, which therefore never wins.
    if b > a { b } else { a }
}

#[inline(always)]
fn largest_for<L: Lanes>(logits: &[f32], out: &mut f32) {
    let mut lanes = [f32::NEG_INFINITY; WIDE];
    let (chunks, rest) = logits.as_chunks::<WIDE>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    let all = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger);
    *out = all.min(f32::MAX);
}

#[inline(always)]
fn weigh_for<L: Lanes>(logits: &[f32], maximum: f32, temperature: f32, weights: &mut [f32], sums: &mut [f64]) {
    let run = weights.len().div_ceil(sums.len().max(1)).max(1);
    let inverse = 1.0 / temperature;
    let runs = logits.chunks(run).zip(weights.chunks_mut(run));
    for ((logits, weights), sum) in runs.zip(sums) {
        for (weight, logit) in weights.iter_mut().zip(logits) {
            // `min` would turn NaN into the largest.
            let finite = if *logit > f32::MAX { f32::MAX } else { *logit };
            let x = (finite - maximum) * inverse;
            let value = exp(x);
            *weight = if x >= NOTHING { value } else { 0.0 };
        }
        let mut lanes = [0.0f64; 8];
        let (chunks, rest) = weights.as_chunks::<8>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value);
            }
        }
        *sum = lanes.iter().sum::<f64>() + rest.iter().map(|value| f64::from(*value)).sum::<f64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    #[test]
    fn largest_skips_what_is_no_number() {
        for isa in Isa::available() {
            let mut noise = Noise::new(1);
            for length in [0, 1, 31, 32, 33, 1000] {
                let mut logits = noise.floats(length);
                let expected = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                logits.extend([f32::NAN, f32::NEG_INFINITY]);
                let mut got = 0.0;
                largest(isa, &logits, &mut got);
                assert_eq!(got, expected, "{isa:?} {length}");
                logits.insert(length / 2, f32::INFINITY);
                largest(isa, &logits, &mut got);
                assert_eq!(got, f32::MAX);
            }
        }
    }

    #[test]
    fn weights_match_the_formula() {
        let mut logits: Vec<f32> = Noise::new(2).floats(999).iter().map(|x| x * 60.0).collect();
        logits[3] = f32::NAN;
        logits[4] = f32::NEG_INFINITY;
        let maximum = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for isa in Isa::available() {
            let (mut weights, mut sums) = (vec![9.0; 999], [9.0; 10]);
            weigh(isa, &logits, maximum, 0.7, &mut weights, &mut sums);
            for (logit, weight) in logits.iter().zip(&weights) {
                let x = f64::from(logit - maximum) / 0.7;
                let expected = if x >= -87.0 { x.exp() } else { 0.0 };
                assert!((f64::from(*weight) - expected).abs() <= 2e-5 * expected + 1e-30, "{logit}: {weight}");
            }
            let (sum, expected) = (sums.iter().sum::<f64>(), weights.iter().map(|w| f64::from(*w)).sum::<f64>());
            assert!((sum - expected).abs() < 1e-9 * expected);
            assert!((sums[0] - weights[..100].iter().map(|w| f64::from(*w)).sum::<f64>()).abs() < 1e-12);
        }
    }
}
