//! `y = x W^T + b` on plain rows. Weights stay as blocks in the mapped file; a block of their rows is decoded at a time
//! and multiplied with every input row, so a row's result does not depend on its batch.

use rayon::prelude::*;

use crate::kernels::{Isa, products};
use crate::linear::Weight;

/// Weight rows of a task: with rows of 1,024 numbers, 256 KiB once decoded.
const BLOCK: usize = 64;
/// Input rows that pass by a block together.
const INPUTS: usize = 64;

#[derive(Debug)]
pub struct Projection {
    weight: Weight,
    bias: Option<Vec<f32>>,
}

impl Projection {
    pub fn new(weight: Weight, bias: Option<Vec<f32>>) -> Projection {
        Projection { weight, bias }
    }

    /// `[n, columns]` to `[n, rows]`.
    pub fn forward(&self, isa: Isa, inputs: &[f32]) -> Vec<f32> {
        let Weight { rows, columns, .. } = self.weight;
        let count = inputs.len() / columns;
        let mut out = vec![0.0; count * rows];
        if count == 0 {
            return out;
        }
        let blocks = self.blocks(isa, inputs, count);
        out.par_chunks_mut(rows).enumerate().with_min_len(8).for_each(|(row, out)| {
            for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                let start = block * BLOCK * count + row * out.len();
                out.copy_from_slice(&blocks[start..start + out.len()]);
            }
            if let Some(bias) = &self.bias {
                out.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        });
        out
    }

    /// For each block of weight rows in turn its products, `[n, rows of the block]`: a task owns a slice.
    fn blocks(&self, isa: Isa, inputs: &[f32], count: usize) -> Vec<f32> {
        let Weight { rows, columns, .. } = self.weight;
        let mut blocks = vec![0.0; count * rows];
        blocks.par_chunks_mut(BLOCK * count).enumerate().for_each_init(Vec::new, |decoded, (block, out)| {
            let rows = out.len() / count;
            decoded.resize(rows * columns, 0.0);
            self.weight.decode_rows(block * BLOCK, decoded);
            for (inputs, out) in inputs.chunks(INPUTS * columns).zip(out.chunks_mut(INPUTS * rows)) {
                products(isa, inputs, decoded, columns, out, rows);
            }
        });
        blocks
    }
}
