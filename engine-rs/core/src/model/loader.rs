//! Opens a model's tensors by name and keeps count: a tensor that nobody asked for means a model that this decoder would
//! compute wrongly, so it is an error and never ignored.

use std::collections::HashSet;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::spec::RopeSpec;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorView};
use crate::linear::{Linear, Weight, open_tensor, open_vector};
use crate::load_watch::LoadWatch;

pub struct Loader<'a> {
    pub file: &'a Arc<Gguf>,
    opened: HashSet<String>,
    watch: &'a LoadWatch,
}

impl<'a> Loader<'a> {
    pub fn new(file: &'a Arc<Gguf>, watch: &'a LoadWatch) -> Loader<'a> {
        Loader { file, opened: HashSet::new(), watch }
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.opt_tensor(name).is_some()
    }

    pub fn weight(&mut self, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        self.count(name)?;
        Weight::open(self.file, name, rows, columns)
    }

    /// The tensor of these dimensions, outermost first, as blocks that the kernels can read.
    pub fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<TensorView<'a>> {
        self.count(name)?;
        open_tensor(self.file, name, dims)
    }

    pub fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        self.count(name)?;
        open_vector(self.file, name, length)
    }

    /// `{name}.weight` and, where there is one, `{name}.bias`.
    pub fn linear(&mut self, name: &str, rows: usize, columns: usize) -> Result<Linear> {
        let weight = self.weight(&format!("{name}.weight"), rows, columns)?;
        let bias = format!("{name}.bias");
        let bias = self.has(&bias).then(|| self.vector(&bias, rows)).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    /// The divisors of a rotation's pairs, if the file has any. Those for another length of context are not needed, but
    /// have their place.
    pub fn divisors(&mut self, rope: &RopeSpec, context_length: usize) -> Result<Option<Vec<f32>>> {
        for length in [0, usize::MAX] {
            self.opened.insert(rope.divisors(length).to_owned());
        }
        let name = rope.divisors(context_length);
        self.has(name).then(|| self.vector(name, rope.rotated / 2)).transpose()
    }

    pub fn norm(&mut self, name: &str, width: usize) -> Result<Tensor> {
        let values = self.vector(&format!("{name}.weight"), width)?;
        Ok(Tensor::from_vec(values, width, &Device::Cpu)?)
    }

    pub fn opt_norm(&mut self, name: &str, width: usize) -> Result<Option<Tensor>> {
        self.has(&format!("{name}.weight")).then(|| self.norm(name, width)).transpose()
    }

    /// A tensor is about to be opened: a moment to tell of it, and to stop.
    fn count(&mut self, name: &str) -> Result<()> {
        self.watch.check()?;
        if self.opened.insert(name.to_owned())
            && let Some(tensor) = self.file.opt_tensor(name)
        {
            self.watch.advance(tensor.data.len() as u64);
        }
        Ok(())
    }

    /// # Errors
    /// `UnsupportedModel` with the first tensor that was never opened.
    pub fn finish(self) -> Result<()> {
        match self.file.tensors().find(|tensor| !self.opened.contains(&tensor.info.name)) {
            None => Ok(()),
            Some(tensor) => Err(Error::UnsupportedModel {
                what: format!("tensor `{}` has no place in this architecture", tensor.info.name),
            }),
        }
    }
}
