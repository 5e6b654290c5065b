//! Normalisation of a row. Sums run in vectors of a fixed shape and then in one tree.

use crate::isa::per_isa;
use crate::math::Math;

per_isa! {
    /// `out = values / sqrt(mean of their squares + epsilon) * weight`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn rms_norm(values: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = rms_norm_for
}

per_isa! {
    /// `out = (values - mean) / sqrt(variance + epsilon) * weight + bias`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn layer_norm(values: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) = layer_norm_for
}

#[inline(always)]
fn rms_norm_for<L: Math>(values: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!((weight.len(), out.len()), (values.len(), values.len()), "widths of a weight and a result");
    let squares = sum::<L, true>(values, 0.0);
    let factor = 1.0 / (squares / values.len() as f32 + epsilon).sqrt();
    for ((out, value), weight) in out.iter_mut().zip(values).zip(weight) {
        *out = value * factor * weight;
    }
}

#[inline(always)]
fn layer_norm_for<L: Math>(values: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = values.len();
    assert_eq!((weight.len(), bias.len(), out.len()), (width, width, width), "widths of weight, bias and result");
    let mean = sum::<L, false>(values, 0.0) / width as f32;
    let variance = sum::<L, true>(values, mean) / width as f32;
    let factor = 1.0 / (variance + epsilon).sqrt();
    for (((out, value), weight), bias) in out.iter_mut().zip(values).zip(weight).zip(bias) {
        *out = (value - mean) * factor * weight + bias;
    }
}

/// The sum of `value - mean`, or of its square.
#[inline(always)]
fn sum<L: Math, const SQUARED: bool>(values: &[f32], mean: f32) -> f32 {
    let groups = values.chunks_exact(4 * L::N);
    let rest = groups.remainder();
    // SAFETY: `per_isa!` runs this only where `L` is available; a group holds four vectors.
    let total = unsafe {
        let down = L::splat(-mean);
        let mut sums = [L::zero(); 4];
        for group in groups {
            for (at, sum) in sums.iter_mut().enumerate() {
                let value = L::load(group.as_ptr().add(at * L::N)).add(down);
                *sum = if SQUARED { sum.add_product(value, value) } else { sum.add(value) };
            }
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).sum()
    };
    rest.iter().fold(total, |total, value| {
        let value = value - mean;
        total + if SQUARED { value * value } else { value }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    const TOLERANCE: f64 = 2e-6;
    const WIDTHS: [usize; 6] = [1, 20, 64, 75, 1024, 4097];

    fn close(got: &[f32], expected: impl Iterator<Item = f64>, what: &str) {
        for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
            let off = (f64::from(*got) - expected).abs();
            assert!(off <= TOLERANCE * expected.abs().max(1.0), "{what} {at}: {got} {expected}");
        }
    }

    #[test]
    fn rms_matches_the_formula() {
        for (isa, width) in Isa::available().into_iter().flat_map(|isa| WIDTHS.map(|width| (isa, width))) {
            let mut noise = Noise::new(width as u64);
            let (values, weight) = (noise.floats(width), noise.floats(width));
            let mut out = vec![f32::NAN; width];
            rms_norm(isa, &values, &weight, 1e-5, &mut out);
            let mean = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
            let root = (mean + 1e-5).sqrt();
            let expected = values.iter().zip(&weight).map(|(v, w)| f64::from(*v) / root * f64::from(*w));
            close(&out, expected, &format!("{isa:?} {width}"));
        }
    }

    #[test]
    fn layer_norm_matches_the_formula() {
        for (isa, width) in Isa::available().into_iter().flat_map(|isa| WIDTHS.map(|width| (isa, width))) {
            let mut noise = Noise::new(width as u64);
            let values: Vec<f32> = noise.floats(width).iter().map(|v| v + 3.0).collect();
            let (weight, bias) = (noise.floats(width), noise.floats(width));
            let mut out = vec![f32::NAN; width];
            layer_norm(isa, &values, &weight, &bias, 1e-2, &mut out);
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / width as f64;
            let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / width as f64;
            let scaled = values.iter().map(|v| (f64::from(*v) - mean) / (variance + f64::from(1e-2f32)).sqrt());
            let expected = scaled.zip(&weight).zip(&bias).map(|((v, w), b)| v * f64::from(*w) + f64::from(*b));
            close(&out, expected, &format!("{isa:?} {width}"));
        }
    }
}
