//! The metadata keys of one architecture, `{architecture}.{name}`, as sizes and numbers that have been checked.

use crate::error::{Error, Result};
use crate::gguf::{Gguf, Value};

pub(super) struct Keys<'a> {
    pub file: &'a Gguf,
    pub architecture: &'static str,
}

impl Keys<'_> {
    pub fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// A size: at least 1.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.nonzero(key, self.file.u32(&self.name(key))?)
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.file.opt_u32(&self.name(key))? {
            Some(size) => self.nonzero(key, size),
            None if default > 0 => Ok(default),
            None => Err(self.file.malformed(format!("`{}` is missing and has no default here", self.name(key)))),
        }
    }

    /// A number of things that may be none; a missing key is none.
    pub fn count(&self, key: &str) -> Result<usize> {
        Ok(self.file.opt_u32(&self.name(key))?.unwrap_or(0) as usize)
    }

    pub fn float(&self, key: &str) -> Result<f32> {
        self.finite(key, self.file.f32(&self.name(key))?)
    }

    pub fn opt_float(&self, key: &str) -> Result<Option<f32>> {
        self.file.opt_f32(&self.name(key))?.map(|value| self.finite(key, value)).transpose()
    }

    /// A factor; a missing key and 0 are 1, as in llama.cpp.
    pub fn factor(&self, key: &str) -> Result<f32> {
        Ok(self.opt_float(key)?.filter(|value| *value != 0.0).unwrap_or(1.0))
    }

    pub fn is_array(&self, key: &str) -> bool {
        matches!(self.file.get(&self.name(key)), Some(Value::Array(_)))
    }

    /// `UnsupportedModel` with the key and its value.
    pub fn unsupported(&self, key: &str, value: impl std::fmt::Display, why: &str) -> Error {
        Error::UnsupportedModel { what: format!("`{}` is {value}: {why}", self.name(key)) }
    }

    fn nonzero(&self, key: &str, size: u32) -> Result<usize> {
        match size {
            0 => Err(self.file.malformed(format!("`{}` is 0", self.name(key)))),
            size => Ok(size as usize),
        }
    }

    fn finite(&self, key: &str, value: f32) -> Result<f32> {
        match value.is_finite() {
            true => Ok(value),
            false => Err(self.file.malformed(format!("`{}` is {value}", self.name(key)))),
        }
    }
}
