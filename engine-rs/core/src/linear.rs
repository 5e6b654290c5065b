//! Matrix products with weights that stay as ggml blocks in the mapped file. A few rows at a time are decoded to f32 and
//! multiplied with every activation row, so that the arithmetic of one activation row is the same in any batch
//! ("row-stable"). Everything that reads weight bytes lives here.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::gguf::{BlockType, Gguf, TensorView};
use crate::kernels::{Isa, SUPPORTED, TILE, decode, products};

/// Activation rows that stay in the second-level cache while all weight rows of a task pass by.
const INPUT_CACHE_BYTES: usize = 384 << 10;
/// Below this many products a task is not worth handing to another thread.
const MIN_TASK_PRODUCTS: usize = 32 << 10;

/// A matrix `[rows, columns]` of blocks in the mapped file.
#[derive(Debug, Clone)]
pub struct Weight {
    file: Arc<Gguf>,
    range: Range<usize>,
    kind: BlockType,
    pub rows: usize,
    pub columns: usize,
    isa: Isa,
}

impl Weight {
    /// # Errors
    /// `MissingTensor`, `UnsupportedTensorType` or, where the shape is not `[rows, columns]`, `BadTensor`.
    pub fn open(file: &Arc<Gguf>, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        let view = open_tensor(file, name, &[rows, columns])?;
        let (range, kind) = (view.info.range.clone(), view.info.kind);
        Ok(Weight { file: file.clone(), range, kind, rows, columns, isa: Isa::best() })
    }

    /// Decodes rows `first..` until `out` is full.
    pub fn decode_rows(&self, first: usize, out: &mut [f32]) {
        let row = self.range.len() / self.rows;
        let bytes = self.file.bytes(self.range.clone());
        decode(self.isa, self.kind, &bytes[first * row..][..out.len() / self.columns * row], out);
    }

    /// `out[i][j]` = weight row `i` x input row `j`: the transpose of what a layer wants, so that a task owns a slice.
    fn multiply(&self, inputs: &[f32], out: &mut [f32]) {
        let batch = inputs.len() / self.columns;
        let inputs_at_once = (INPUT_CACHE_BYTES / 4 / self.columns).max(TILE) / TILE * TILE;
        let rows = (MIN_TASK_PRODUCTS / (self.columns * batch)).clamp(1, 16) * TILE;
        out.par_chunks_mut(rows * batch).enumerate().for_each_init(Vec::new, |decoded, (task, out)| {
            for (at, inputs) in inputs.chunks(inputs_at_once * self.columns).enumerate() {
                for (strip, out) in out.chunks_mut(TILE * batch).enumerate() {
                    decoded.resize(out.len() / batch * self.columns, 0.0);
                    self.decode_rows(task * rows + strip * TILE, decoded);
                    products(self.isa, decoded, inputs, self.columns, &mut out[at * inputs_at_once..], batch);
                }
            }
        });
    }
}

/// A weight and, where the model has one, a bias for each of its rows: `y = x W^T + b` over the last dimension.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Vec<f32>>,
}

impl Linear {
    pub fn new(weight: Weight, bias: Option<Vec<f32>>) -> Linear {
        Linear { weight, bias }
    }

    pub fn forward(&self, input: &Tensor) -> Result<Tensor> {
        Ok(input.apply_op1_no_bwd(self)?)
    }

    fn rows(&self, inputs: &[f32]) -> Vec<f32> {
        let batch = inputs.len() / self.weight.columns;
        let mut products = vec![0.0; self.weight.rows * batch];
        self.weight.multiply(inputs, &mut products);
        if batch > 1 {
            products = transpose(&products, batch);
        }
        if let Some(bias) = &self.bias {
            for row in products.chunks_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
        products
    }
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "gguf-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let inputs: &[f32] = storage.as_slice()?;
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a linear layer needs contiguous rows");
        };
        let mut dims = layout.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last == self.weight.columns => *last = self.weight.rows,
            _ => candle_core::bail!("rows of {:?} for {} columns", layout.dims(), self.weight.columns),
        }
        Ok((CpuStorage::F32(self.rows(&inputs[start..end])), dims.into()))
    }
}

/// `[n, batch]` to `[batch, n]`.
fn transpose(from: &[f32], batch: usize) -> Vec<f32> {
    let rows = from.len() / batch;
    let mut to = vec![0.0; from.len()];
    to.par_chunks_mut(rows).enumerate().with_min_len(4).for_each(|(at, to)| {
        for (value, row) in to.iter_mut().zip(from.chunks(batch)) {
            *value = row[at];
        }
    });
    to
}

/// A tensor of the given dimensions in a type that `decode` reads.
///
/// # Errors
/// `MissingTensor`, `BadTensor` for other dimensions, `UnsupportedTensorType`.
pub fn open_tensor<'a>(file: &'a Gguf, name: &str, dims: &[usize]) -> Result<TensorView<'a>> {
    let view = file.tensor(name)?;
    check(&view, dims)?;
    Ok(view)
}

/// A vector such as a norm's weights or a bias, decoded.
pub fn open_vector(file: &Gguf, name: &str, length: usize) -> Result<Vec<f32>> {
    let view = open_tensor(file, name, &[length])?;
    let mut values = vec![0.0; length];
    decode(Isa::best(), view.info.kind, view.data, &mut values);
    Ok(values)
}

fn check(view: &TensorView<'_>, dims: &[usize]) -> Result<()> {
    let tensor = view.info.name.clone();
    if view.info.dims != dims {
        return Err(Error::BadTensor { tensor, expected: format!("{dims:?}"), got: view.info.describe() });
    }
    if !SUPPORTED.contains(&view.info.kind) {
        return Err(Error::UnsupportedTensorType { tensor, name: view.info.kind.name.to_owned() });
    }
    Ok(())
}
