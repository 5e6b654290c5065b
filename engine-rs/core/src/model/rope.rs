//! Rotary position embedding: each pair of a head's elements turns by an angle that grows with the position, more slowly
//! from pair to pair.

use candle_core::{Device, Tensor};
use candle_nn::rotary_emb;

use super::spec::{RopeKind, RopeSpec};
use crate::error::Result;

/// The angle of each pair at position 1.
#[derive(Debug, Clone)]
pub struct Rope {
    kind: RopeKind,
    steps: Vec<f64>,
}

/// Cosines and sines for the rows of a batch, `[rows, 1, width / 2]` each.
pub struct Angles {
    cosines: Tensor,
    sines: Tensor,
}

impl Rope {
    /// `divisors` is `rope_freqs.weight`: what slows each pair down in models stretched beyond their first context.
    pub fn new(spec: &RopeSpec, width: usize, divisors: Option<&[f32]>) -> Rope {
        let pairs = width / 2;
        let step = |pair: usize| {
            let divisor = divisors.map_or(1.0, |divisors| f64::from(divisors[pair]));
            f64::from(spec.base).powf(-(pair as f64) / pairs as f64) / divisor / f64::from(spec.factor)
        };
        Rope { kind: spec.kind, steps: (0..pairs).map(step).collect() }
    }

    /// Angles are computed in double precision: at position 30,000 a float's are off by a thousandth of a turn.
    pub fn angles(&self, positions: &[usize]) -> Result<Angles> {
        let pairs = self.steps.len();
        let turned = positions.iter().flat_map(|position| self.steps.iter().map(|step| *position as f64 * step));
        let (sines, cosines): (Vec<f32>, Vec<f32>) =
            turned.map(|angle| angle.sin_cos()).map(|(sine, cosine)| (sine as f32, cosine as f32)).unzip();
        let shape = (positions.len(), 1, pairs);
        Ok(Angles {
            cosines: Tensor::from_vec(cosines, shape, &Device::Cpu)?,
            sines: Tensor::from_vec(sines, shape, &Device::Cpu)?,
        })
    }

    /// `[rows, heads, width]` turned by each row's angles.
    pub fn apply(&self, heads: &Tensor, angles: &Angles) -> Result<Tensor> {
        // Candle wants [batch, heads, positions, width] and takes one set of angles for each member of the batch: with a
        // row as a batch of one position nothing need be transposed.
        let rows = heads.unsqueeze(2)?;
        let turned = match self.kind {
            RopeKind::Interleaved => rotary_emb::rope_i(&rows, &angles.cosines, &angles.sines)?,
            RopeKind::Halves => rotary_emb::rope(&rows, &angles.cosines, &angles.sines)?,
        };
        Ok(turned.squeeze(2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(kind: RopeKind, position: usize, head: [f32; 4]) -> Vec<f32> {
        let rope = Rope::new(&RopeSpec { kind, base: 100.0, factor: 2.0 }, 4, Some(&[1.0, 4.0]));
        let heads = Tensor::from_vec(head.to_vec(), (1, 1, 4), &Device::Cpu).unwrap();
        let angles = rope.angles(&[position]).unwrap();
        rope.apply(&heads, &angles).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn pairs_turn_by_kind() {
        // At position 8 the first pair turns by 8 / 2 = 4, the second by 8 * 0.1 / 4 / 2 = 0.1.
        let (a, b) = (4f32, 0.1f32);
        let cases = [
            (RopeKind::Interleaved, [1.0, 0.0, 0.0, 1.0], [a.cos(), a.sin(), -b.sin(), b.cos()]),
            (RopeKind::Halves, [1.0, 0.0, 0.0, 1.0], [a.cos(), -b.sin(), a.sin(), b.cos()]),
        ];
        for (kind, head, expected) in cases {
            for (got, expected) in turned(kind, 8, head).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{kind:?}: {got} {expected}");
            }
        }
    }

    #[test]
    fn position_zero_stays() {
        assert_eq!(turned(RopeKind::Halves, 0, [1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]);
    }
}
