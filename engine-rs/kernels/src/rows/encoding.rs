//! What encoders do to whole rows besides products: layer norms, the exact GELU, the softmax of attention without a mask.
//! Sums run over sixteen lanes in one fixed order, so a row's result depends on the row alone.

use crate::exp::exp;
use crate::isa::{Lanes, per_isa};

const LANES: usize = 16;

per_isa! {
    /// Each row of `rows`, as long as `weight` and `bias`: `(row - mean) / sqrt(variance + epsilon) * weight + bias`.
    pub fn layer_norm(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) = layer_norm_for
}

per_isa! {
    /// `values = x/2 (1 + erf(x / sqrt 2))`: the GELU that BERT was trained with, and not its approximation by tanh.
    pub fn gelu(values: &mut [f32]) = gelu_for
}

per_isa! {
    /// `row = softmax(scale * row)`, for a positive scale.
    pub fn softmax(row: &mut [f32], scale: f32) = softmax_for
}

#[inline(always)]
fn layer_norm_for<L: Lanes>(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let width = weight.len();
    for row in rows.chunks_exact_mut(width) {
        let mean = sum(row) / width as f32;
        for value in row.iter_mut() {
            *value -= mean;
        }
        let factor = 1.0 / (sum_of_squares(row) / width as f32 + epsilon).sqrt();
        for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
            *value = *value * factor * weight + bias;
        }
    }
}

#[inline(always)]
fn gelu_for<L: Lanes>(values: &mut [f32]) {
    for value in values {
        *value = 0.5 * *value * (1.0 + erf(*value * std::f32::consts::FRAC_1_SQRT_2));
    }
}

#[inline(always)]
fn softmax_for<L: Lanes>(row: &mut [f32], scale: f32) {
    let highest = row.iter().fold(f32::NEG_INFINITY, |highest, value| highest.max(*value));
    for value in row.iter_mut() {
        *value = exp((*value - highest) * scale);
    }
    let factor = 1.0 / sum(row);
    for value in row.iter_mut() {
        *value *= factor;
    }
}

/// To 1.5e-7 (Abramowitz and Stegun 7.1.26), in plain arithmetic that vectorises.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    (1.0 - p * exp(-size * size)).copysign(x)
}

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().chain(rest).sum()
}

#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value * value;
        }
    }
    rest.iter().fold(lanes.iter().sum(), |sum, value| sum + value * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    const TOLERANCE: f64 = 2e-6;

    fn close(got: &[f32], expected: &[f64], scale: f64, what: &str) {
        for (got, expected) in got.iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() <= TOLERANCE * scale, "{what}: {got} {expected}");
        }
    }

    #[test]
    fn norms_match_the_formula() {
        let mut noise = Noise::new(1);
        for width in [1, 7, 16, 33, 384] {
            let (row, weight, bias) = (noise.floats(width), noise.floats(width), noise.floats(width));
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
            let norm = |at: usize| (f64::from(row[at]) - mean) / (variance + 1e-5).sqrt();
            let expected: Vec<f64> =
                (0..width).map(|at| norm(at) * f64::from(weight[at]) + f64::from(bias[at])).collect();
            for isa in Isa::available() {
                let mut got = row.clone();
                layer_norm(isa, &mut got, &weight, &bias, 1e-5);
                close(&got, &expected, 3.0, &format!("{isa:?} {width}"));
            }
        }
    }

    #[test]
    fn gelu_matches_known_values() {
        // x/2 (1 + erf(x / sqrt 2)) to ten digits.
        let known = [
            (-6.0, -5.9195e-9),
            (-3.0, -0.004_049_694_1),
            (-1.0, -0.158_655_253_9),
            (-0.5, -0.154_268_769_4),
            (0.0, 0.0),
            (0.25, 0.149_676_641_7),
            (0.5, 0.345_731_230_6),
            (1.0, 0.841_344_746_1),
            (2.0, 1.954_499_736_1),
            (50.0, 50.0),
        ];
        for isa in Isa::available() {
            let mut values: Vec<f32> = known.iter().map(|(x, _)| *x).collect();
            gelu(isa, &mut values);
            let expected: Vec<f64> = known.iter().map(|(_, y)| *y).collect();
            close(&values, &expected, 1.0, &format!("{isa:?}"));
        }
    }

    #[test]
    fn softmax_sums_to_one() {
        let mut noise = Noise::new(2);
        for length in [1, 5, 16, 100] {
            let row: Vec<f32> = noise.floats(length).iter().map(|x| x * 20.0).collect();
            let total: f64 = row.iter().map(|x| (f64::from(*x) * 0.25).exp()).sum();
            let expected: Vec<f64> = row.iter().map(|x| (f64::from(*x) * 0.25).exp() / total).collect();
            for isa in Isa::available() {
                let mut got = row.clone();
                softmax(isa, &mut got, 0.25);
                close(&got, &expected, 1.0, &format!("{isa:?} {length}"));
            }
        }
    }
}
