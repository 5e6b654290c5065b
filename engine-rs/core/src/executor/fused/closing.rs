//! How a branch, attention's or a feed-forward's, goes back into the stream of hidden rows.

use quiver_kernels::rows::{rms_norm, scale_add};
use quiver_kernels::{Isa, add};

use crate::model::DecoderSpec;

/// What is done to the branch first. The default is what comes before the first layer: there is no branch yet.
#[derive(Debug, Clone, Copy, Default)]
pub struct Closing<'a> {
    pub present: bool,
    pub bias: Option<&'a [f32]>,
    pub norm: Option<&'a [f32]>,
}

impl Closing<'_> {
    /// Adds one row of the branch to its hidden row; `room` is as wide.
    pub fn add(&self, isa: Isa, spec: &DecoderSpec, hidden: &mut [f32], branch: &mut [f32], room: &mut [f32]) {
        if !self.present {
            return;
        }
        if let Some(bias) = self.bias {
            add(isa, branch, bias);
        }
        let branch = match self.norm {
            Some(norm) => {
                rms_norm(isa, branch, norm, spec.norm_epsilon, room);
                room
            }
            None => branch,
        };
        match spec.residual_scale {
            1.0 => add(isa, hidden, branch),
            scale => scale_add(isa, hidden, scale, branch),
        }
    }
}
