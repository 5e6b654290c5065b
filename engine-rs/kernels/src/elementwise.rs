//! Element by element operations on rows. Candle has them too, but runs them on threads of its own that spin while they
//! wait, which a process that also serves connections cannot afford.

use super::exp::exp;
use super::isa::{Lanes, per_isa};

per_isa! {
    /// `values += other`.
    pub fn add(values: &mut [f32], other: &[f32]) = add_for
}

per_isa! {
    /// `gates = silu(gates) * values`, where silu(x) = x / (1 + e^-x).
    pub fn gate(gates: &mut [f32], values: &[f32]) = gate_for
}

#[inline(always)]
fn add_for<L: Lanes>(values: &mut [f32], other: &[f32]) {
    for (value, other) in values.iter_mut().zip(other) {
        *value += other;
    }
}

#[inline(always)]
fn gate_for<L: Lanes>(gates: &mut [f32], values: &[f32]) {
    for (gate, value) in gates.iter_mut().zip(values) {
        // Only ever e to a negative power, so that nothing overflows.
        let small = exp(-gate.abs());
        let numerator = if *gate < 0.0 { small } else { 1.0 };
        *gate = *gate * numerator / (1.0 + small) * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    const TOLERANCE: f64 = 1e-6;

    #[test]
    fn gates_match_the_formula() {
        let mut noise = Noise::new(1);
        let inputs: Vec<f32> = noise.floats(999).iter().map(|x| x * 100.0).collect();
        let values = noise.floats(999);
        for isa in Isa::available() {
            let mut gates = inputs.clone();
            gate(isa, &mut gates, &values);
            for ((got, x), value) in gates.iter().zip(&inputs).zip(&values) {
                let x = f64::from(*x);
                let expected = x / (1.0 + (-x).exp()) * f64::from(*value);
                assert!((f64::from(*got) - expected).abs() <= TOLERANCE * x.abs().max(1.0), "{isa:?} {x}");
            }
        }
    }

    #[test]
    fn odd_numbers_stay_odd() {
        let mut gates = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        gate(Isa::best(), &mut gates, &[1.0; 4]);
        assert!(gates[0].is_nan() && gates[1] == f32::INFINITY && gates[3] == 0.0, "{gates:?}");
    }

    #[test]
    fn sums_are_exact() {
        for isa in Isa::available() {
            let mut values = vec![0.25; 37];
            add(isa, &mut values, &[0.5; 37]);
            assert_eq!(values, [0.75; 37]);
        }
    }
}
