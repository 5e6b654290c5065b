//! Rotary position embedding: each pair of a head's elements turns by an angle that grows with the position, more slowly
//! from pair to pair. Angles are computed in double precision: at position 30,000 a float's are off by a thousandth of a
//! turn.

use std::f64::consts::TAU;

use super::spec::{RopeKind, RopeScaling, RopeSpec};

/// The angle of each pair at position 1.
#[derive(Debug, Clone)]
pub struct Rope {
    pub kind: RopeKind,
    steps: Vec<f64>,
    magnitude: f64,
}

impl Rope {
    /// `divisors` slow each pair down in models stretched beyond their first context: see `RopeSpec::divisors`.
    ///
    /// # Panics
    /// Where there are fewer divisors than pairs.
    pub fn new(spec: &RopeSpec, divisors: Option<&[f32]>) -> Rope {
        let pairs = spec.rotated / 2;
        let step = |pair: usize| {
            let divisor = divisors.map_or(1.0, |divisors| f64::from(divisors[pair]));
            let turn = f64::from(spec.base).powf(-(pair as f64) / pairs as f64) / divisor;
            scaled(spec, pair, turn)
        };
        Rope { kind: spec.kind, steps: (0..pairs).map(step).collect(), magnitude: f64::from(spec.magnitude) }
    }

    /// Pairs that rotate.
    pub fn pairs(&self) -> usize {
        self.steps.len()
    }

    /// Cosines and sines, `[positions, pairs]` each.
    pub fn table(&self, positions: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let angles = positions.iter().flat_map(|position| self.steps.iter().map(|step| *position as f64 * step));
        let turned = angles.map(|angle| angle.sin_cos());
        turned.map(|(sine, cosine)| ((cosine * self.magnitude) as f32, (sine * self.magnitude) as f32)).unzip()
    }
}

/// The angle at position 1 after scaling.
fn scaled(spec: &RopeSpec, pair: usize, turn: f64) -> f64 {
    match spec.scaling {
        RopeScaling::None => turn,
        RopeScaling::Linear { factor } | RopeScaling::Long { factor, .. } => turn / f64::from(factor),
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, extrapolation } => {
            let left_alone = |turns: f32| pair_that_turns(spec, original_context, turns);
            let ends = (left_alone(beta_fast).floor(), left_alone(beta_slow).ceil());
            let share = f64::from(extrapolation) * share_left_alone(spec, pair, ends);
            turn / f64::from(factor) * (1.0 - share) + turn * share
        }
    }
}

/// The pair, as a fraction, that turns so often within the original context.
fn pair_that_turns(spec: &RopeSpec, original_context: usize, turns: f32) -> f64 {
    let wavelength = original_context as f64 / (f64::from(turns) * TAU);
    spec.rotated as f64 * wavelength.ln() / (2.0 * f64::from(spec.base).ln())
}

/// 1 up to the first end, 0 from the second on, and a ramp between.
fn share_left_alone(spec: &RopeSpec, pair: usize, (first, last): (f64, f64)) -> f64 {
    let (first, last) = (first.max(0.0), last.min(spec.rotated as f64 - 1.0));
    1.0 - ((pair as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(scaling: RopeScaling) -> RopeSpec {
        RopeSpec { kind: RopeKind::Halves, rotated: 8, base: 10_000.0, scaling, magnitude: 1.0 }
    }

    /// The angles of the first position, taken back from their sines and cosines.
    fn steps(spec: &RopeSpec, divisors: Option<&[f32]>) -> Vec<f32> {
        let (cosines, sines) = Rope::new(spec, divisors).table(&[1]);
        cosines.iter().zip(&sines).map(|(cosine, sine)| sine.atan2(*cosine)).collect()
    }

    #[allow(clippy::type_complexity, reason = "a table")]
    #[test]
    fn scaling_slows_pairs() {
        // Within 1000 positions: 32 turns happen at pair 8 ln(1000 / (32 tau)) / (2 ln 10000) = 0.697, one at 2.202; so the
        // ramp falls from pair 0 to pair 3, and 0, 1/3, 2/3 and 1 of each pair are divided by 4.
        let yarn = |extrapolation| RopeScaling::Yarn {
            factor: 4.0,
            original_context: 1000,
            beta_fast: 32.0,
            beta_slow: 1.0,
            extrapolation,
        };
        let long = RopeScaling::Long { factor: 1.0, original_context: 8 };
        let divisors: Option<&[f32]> = Some(&[1.0, 2.0, 4.0, 8.0]);
        let cases: [(RopeScaling, Option<&[f32]>, [f32; 4]); 6] = [
            (RopeScaling::None, None, [1.0, 0.1, 0.01, 0.001]),
            (RopeScaling::None, divisors, [1.0, 0.05, 0.0025, 0.000125]),
            (RopeScaling::Linear { factor: 2.0 }, None, [0.5, 0.05, 0.005, 0.0005]),
            (long, divisors, [1.0, 0.05, 0.0025, 0.000125]),
            (yarn(1.0), None, [1.0, 0.075, 0.005, 0.00025]),
            (yarn(0.0), None, [0.25, 0.025, 0.0025, 0.00025]),
        ];
        for (scaling, divisors, expected) in cases {
            for (got, expected) in steps(&spec(scaling), divisors).iter().zip(expected) {
                assert!((got / expected - 1.0).abs() < 1e-5, "{scaling:?}: {got} {expected}");
            }
        }
    }

    #[test]
    fn magnitude_multiplies_the_table() {
        let doubled = RopeSpec { magnitude: 2.0, ..spec(RopeScaling::None) };
        let (cosines, sines) = Rope::new(&doubled, None).table(&[0, 3]);
        assert_eq!((&cosines[..4], &sines[..4]), (&[2.0; 4][..], &[0.0; 4][..]));
        assert!((cosines[4] - 2.0 * 3f32.cos()).abs() < 1e-6 && (sines[5] - 2.0 * 0.3f32.sin()).abs() < 1e-6);
    }

    #[test]
    fn far_positions_keep_their_angle() {
        // 100,000 radians are 15915 turns and 3.096... radians: exact in f64, off by 0.004 in f32.
        let (cosines, _) = Rope::new(&spec(RopeScaling::None), None).table(&[100_000]);
        assert!((f64::from(cosines[0]) - 100_000f64.cos()).abs() < 1e-7);
        assert!((f64::from(cosines[1]) - 10_000f64.cos()).abs() < 1e-7);
    }

    #[test]
    fn long_contexts_choose_divisors() {
        let long = spec(RopeScaling::Long { factor: 1.0, original_context: 4096 });
        let cases = [(long.clone(), 4096, "short"), (long, 4097, "long"), (spec(RopeScaling::None), 9, "rope_freqs")];
        for (spec, context, name) in cases {
            assert!(spec.divisors(context).contains(name), "{context} {name}");
        }
    }
}
