//! Opens an encoder's tensors by name and keeps count: a tensor that nobody asked for means a model that would be
//! computed wrongly, so it is an error and never ignored.

use std::collections::HashSet;
use std::sync::Arc;

use super::projection::Projection;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kernels::{Isa, layer_norm};
use crate::linear::{Weight, open_vector};

/// A layer norm's numbers.
#[derive(Debug)]
pub struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Norm {
    pub fn apply(&self, isa: Isa, rows: &mut [f32]) {
        layer_norm(isa, rows, &self.weight, &self.bias, self.epsilon);
    }
}

pub struct Loader<'a> {
    file: &'a Arc<Gguf>,
    epsilon: f32,
    opened: HashSet<String>,
}

impl<'a> Loader<'a> {
    pub fn new(file: &'a Arc<Gguf>, epsilon: f32) -> Loader<'a> {
        Loader { file, epsilon, opened: HashSet::new() }
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.opt_tensor(name).is_some()
    }

    /// The rows of a matrix, where it is known how many there should be.
    pub fn rows(&self, name: &str) -> Result<usize> {
        match self.file.tensor(name)?.info.dims[..] {
            [rows, _] => Ok(rows),
            _ => Err(self.file.malformed(format!("`{name}` is not a matrix"))),
        }
    }

    pub fn weight(&mut self, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        self.opened.insert(name.to_owned());
        Weight::open(self.file, name, rows, columns)
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        self.opened.insert(name.to_owned());
        open_vector(self.file, name, length)
    }

    /// `{name}.weight` and, where there is one, `{name}.bias`.
    pub fn projection(&mut self, name: &str, rows: usize, columns: usize) -> Result<Projection> {
        let weight = self.weight(&format!("{name}.weight"), rows, columns)?;
        let bias = format!("{name}.bias");
        let bias = self.has(&bias).then(|| self.vector(&bias, rows)).transpose()?;
        Ok(Projection::new(weight, bias))
    }

    pub fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        let weight = self.vector(&format!("{name}.weight"), width)?;
        let bias = self.vector(&format!("{name}.bias"), width)?;
        Ok(Norm { weight, bias, epsilon: self.epsilon })
    }

    /// # Errors
    /// `UnsupportedModel` with the first tensor that was never opened.
    pub fn finish(self) -> Result<()> {
        match self.file.tensors().find(|tensor| !self.opened.contains(&tensor.info.name)) {
            None => Ok(()),
            Some(tensor) => {
                let what = format!("tensor `{}` has no place in this architecture", tensor.info.name);
                Err(Error::UnsupportedModel { what })
            }
        }
    }
}
