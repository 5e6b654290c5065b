//! The element by element steps of a layer, as operations on candle tensors.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::error::Result;
use crate::kernels::{Isa, add, gate};

/// Elements in a task; fewer are not worth another thread.
const TASK: usize = 16 << 10;

/// A step that changes its first operand by its second.
struct InPlace {
    name: &'static str,
    kernel: fn(Isa, &mut [f32], &[f32]),
}

/// `left + right`.
pub(super) fn sum(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    Ok(left.apply_op2_no_bwd(right, &InPlace { name: "sum", kernel: add })?)
}

/// `silu(gates) * values`.
pub(super) fn gated(gates: &Tensor, values: &Tensor) -> Result<Tensor> {
    Ok(gates.apply_op2_no_bwd(values, &InPlace { name: "gated", kernel: gate })?)
}

impl CustomOp2 for InPlace {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        left: &CpuStorage,
        left_layout: &Layout,
        right: &CpuStorage,
        right_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (left, right): (&[f32], &[f32]) = (left.as_slice()?, right.as_slice()?);
        let offsets = (left_layout.contiguous_offsets(), right_layout.contiguous_offsets());
        let (Some((start, end)), Some((right_start, right_end))) = offsets else {
            candle_core::bail!("{} needs contiguous operands", self.name);
        };
        if left_layout.shape() != right_layout.shape() {
            candle_core::bail!("{} of {:?} and {:?}", self.name, left_layout.shape(), right_layout.shape());
        }
        let (mut values, other) = (left[start..end].to_vec(), &right[right_start..right_end]);
        let isa = Isa::best();
        if values.len() <= TASK {
            (self.kernel)(isa, &mut values, other);
        } else {
            let tasks = values.par_chunks_mut(TASK).zip(other.par_chunks(TASK));
            tasks.for_each(|(values, other)| (self.kernel)(isa, values, other));
        }
        Ok((CpuStorage::F32(values), left_layout.shape().clone()))
    }
}
