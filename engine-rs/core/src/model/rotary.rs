//! Rotation of candle tensors by the angles of `rope`.

use candle_core::{Device, Tensor};
use candle_nn::rotary_emb;

use super::rope::Rope;
use super::spec::RopeKind;
use crate::error::Result;

/// Cosines and sines for the rows of a batch, `[rows, 1, pairs]` each.
pub(super) struct Angles {
    cosines: Tensor,
    sines: Tensor,
}

impl Angles {
    pub fn new(rope: &Rope, positions: &[usize]) -> Result<Angles> {
        let (cosines, sines) = rope.table(positions);
        let shape = (positions.len(), 1, rope.pairs());
        Ok(Angles {
            cosines: Tensor::from_vec(cosines, shape, &Device::Cpu)?,
            sines: Tensor::from_vec(sines, shape, &Device::Cpu)?,
        })
    }

    /// `[rows, heads, width]` turned by each row's angles.
    pub fn turn(&self, kind: RopeKind, heads: &Tensor) -> Result<Tensor> {
        // Candle wants [batch, heads, positions, width] and takes one set of angles for each member of the batch: with a
        // row as a batch of one position nothing need be transposed.
        let rows = heads.unsqueeze(2)?;
        let turned = match kind {
            RopeKind::Interleaved => rotary_emb::rope_i(&rows, &self.cosines, &self.sines)?,
            RopeKind::Halves => rotary_emb::rope(&rows, &self.cosines, &self.sines)?,
        };
        Ok(turned.squeeze(2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::{RopeScaling, RopeSpec};
    use super::*;

    fn turned(kind: RopeKind, position: usize, head: [f32; 4]) -> Vec<f32> {
        let scaling = RopeScaling::Linear { factor: 2.0 };
        let rope = Rope::new(&RopeSpec { kind, rotated: 4, base: 100.0, scaling, magnitude: 1.0 }, Some(&[1.0, 4.0]));
        let heads = Tensor::from_vec(head.to_vec(), (1, 1, 4), &Device::Cpu).unwrap();
        let angles = Angles::new(&rope, &[position]).unwrap();
        angles.turn(kind, &heads).unwrap().flatten_all().unwrap().to_vec1().unwrap()
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
