//! Gates and caps. The formulas are plain Rust that the compiler turns into vector code, so every instruction set gives the
//! same bits.

use crate::exp::exp;
use crate::isa::{Lanes, per_isa};

per_isa! {
    /// `gates = gelu(gates) * values`, with the tanh form of gelu.
    pub fn gelu_gate(gates: &mut [f32], values: &[f32]) = gelu_gate_for
}

per_isa! {
    /// `values = cap * tanh(values / cap)`.
    pub fn softcap(values: &mut [f32], cap: f32) = softcap_for
}

per_isa! {
    /// `values += scale * other`.
    pub fn scale_add(values: &mut [f32], scale: f32, other: &[f32]) = scale_add_for
}

#[inline(always)]
fn gelu_gate_for<L: Lanes>(gates: &mut [f32], values: &[f32]) {
    const SQRT_8_OVER_PI: f32 = 1.595_769;
    for (gate, value) in gates.iter_mut().zip(values) {
        let x = *gate;
        // (1 + tanh(y)) / 2 = 1 / (1 + e^-2y), which loses no digits where tanh is near -1.
        let twice = SQRT_8_OVER_PI * (x + 0.044_715 * x * x * x);
        let small = exp(-twice.abs());
        let numerator = if twice < 0.0 { small } else { 1.0 };
        *gate = x * numerator / (1.0 + small) * value;
    }
}

#[inline(always)]
fn softcap_for<L: Lanes>(values: &mut [f32], cap: f32) {
    for value in values {
        *value = cap * tanh(*value / cap);
    }
}

#[inline(always)]
fn scale_add_for<L: Lanes>(values: &mut [f32], scale: f32, other: &[f32]) {
    for (value, other) in values.iter_mut().zip(other) {
        *value += scale * other;
    }
}

/// The hyperbolic tangent, to about one unit in the last place: a polynomial near 0, where the quotient would lose digits.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let small = exp(-2.0 * x.abs());
    let far = ((1.0 - small) / (1.0 + small)).copysign(x);
    // Minimax polynomial of Cephes' tanhf, for |x| < 0.625.
    let square = x * x;
    let mut p = -5.704_988e-3;
    p = p * square + 2.063_909e-2;
    p = p * square - 5.373_971_6e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    let near = p * square * x + x;
    if x.abs() < 0.625 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    const TOLERANCE: f64 = 1e-6;

    fn inputs() -> Vec<f32> {
        let mut noise = Noise::new(1);
        [100.0, 3.0, 0.1].iter().flat_map(|scale| noise.floats(333).into_iter().map(move |x| x * scale)).collect()
    }

    #[test]
    fn gelu_matches_the_formula() {
        let (inputs, values) = (inputs(), Noise::new(2).floats(999));
        for isa in Isa::available() {
            let mut gates = inputs.clone();
            gelu_gate(isa, &mut gates, &values);
            for ((got, x), value) in gates.iter().zip(&inputs).zip(&values) {
                let x = f64::from(*x);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                let expected = 0.5 * x * (1.0 + inner.tanh()) * f64::from(*value);
                assert!((f64::from(*got) - expected).abs() <= TOLERANCE * expected.abs().max(1e-3), "{isa:?} {x}");
            }
        }
    }

    #[test]
    fn caps_match_the_formula() {
        let inputs = inputs();
        for (isa, cap) in Isa::available().into_iter().flat_map(|isa| [(isa, 30.0), (isa, 0.5)]) {
            let mut values = inputs.clone();
            softcap(isa, &mut values, cap);
            for (got, x) in values.iter().zip(&inputs) {
                let expected = f64::from(cap) * (f64::from(*x) / f64::from(cap)).tanh();
                assert!((f64::from(*got) / expected - 1.0).abs() <= TOLERANCE, "{isa:?} {x} {got} {expected}");
            }
        }
    }

    #[test]
    fn caps_bound_what_is_odd() {
        let mut values = [f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::NAN];
        softcap(Isa::best(), &mut values, 30.0);
        assert!(values[..3] == [30.0, -30.0, 0.0] && values[3].is_nan(), "{values:?}");
    }

    #[test]
    fn scaled_sums_are_exact() {
        for isa in Isa::available() {
            let mut values = vec![0.25; 37];
            scale_add(isa, &mut values, 0.5, &[3.0; 37]);
            assert_eq!(values, [1.75; 37]);
        }
    }
}
