//! Encoders for Python. Loading, `wait` and `close` run without the GIL, and the encoder's own thread never touches
//! Python.
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quiver_core::encoder as core;
use quiver_core::error::Error;
use quiver_core::gguf::Gguf;

use crate::errors::{raise, raise_forked, raise_load};

#[pyclass(frozen, get_all, module = "quiver._engine")]
#[derive(Clone)]
pub struct EncoderInfo {
    architecture: String,
    name: String,
    parameters: u64,
    context_length: usize,
    vocabulary: usize,
    width: usize,
    pooling: String,
    size_bytes: u64,
}

#[pymethods]
impl EncoderInfo {
    fn __repr__(&self) -> String {
        let Self { architecture, parameters, width, pooling, context_length, .. } = self;
        format!(
            "<EncoderInfo {architecture} {parameters} parameters, width {width}, {pooling}, context {context_length}>"
        )
    }
}

impl From<core::EncoderInfo> for EncoderInfo {
    fn from(info: core::EncoderInfo) -> Self {
        Self {
            architecture: info.architecture,
            name: info.name,
            parameters: info.parameters,
            context_length: info.context_length,
            vocabulary: info.vocabulary,
            width: info.width,
            pooling: info.pooling.to_owned(),
            size_bytes: info.size_bytes,
        }
    }
}

#[derive(FromPyObject)]
enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

#[pyclass(frozen, get_all, module = "quiver._engine")]
pub struct Embedded {
    width: usize,
    values: Py<PyBytes>,
    tokens: Vec<usize>,
}

#[pyclass(frozen, module = "quiver._engine")]
pub struct Encoder {
    inner: ManuallyDrop<core::Embedder>,
    process: u32,
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (path, *, threads = 0))]
    fn new(py: Python<'_>, path: PathBuf, threads: usize) -> PyResult<Self> {
        let opened = py.detach(|| core::Embedder::open(&path, threads));
        let inner = opened.map_err(|error| raise_load(py, &error))?;
        Ok(Self { inner: ManuallyDrop::new(inner), process: std::process::id() })
    }

    #[getter]
    fn info(&self) -> EncoderInfo {
        self.inner.info.clone().into()
    }

    #[pyo3(signature = (inputs, *, dimensions = None))]
    fn request(&self, py: Python<'_>, inputs: Vec<Input>, dimensions: Option<usize>) -> PyResult<EmbeddingTicket> {
        let inputs = inputs.into_iter().map(|input| match input {
            Input::Text(text) => core::Input::Text(text),
            Input::Tokens(tokens) => core::Input::Tokens(tokens),
        });
        let ticket = self.here(py)?.request(inputs.collect(), dimensions);
        ticket.map(|inner| EmbeddingTicket { inner }).map_err(|error| raise(py, &error))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let embedder = self.here(py)?;
        py.detach(|| embedder.close());
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<Encoder {}>", self.inner.info.architecture)
    }
}

impl Encoder {
    /// The encoder, unless this process is a fork of the one whose thread runs it.
    fn here(&self, py: Python<'_>) -> PyResult<&core::Embedder> {
        if std::process::id() == self.process { Ok(&self.inner) } else { Err(raise_forked(py)) }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // In a fork there is no thread to end, and waiting for it would never return.
        if std::process::id() == self.process {
            // SAFETY: dropped here only, and never used again.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

#[pyclass(frozen, module = "quiver._engine")]
pub struct EmbeddingTicket {
    inner: core::Ticket,
}

#[pymethods]
impl EmbeddingTicket {
    fn wait(&self, py: Python<'_>) -> PyResult<Embedded> {
        let embedded = py.detach(|| self.inner.wait()).map_err(|error| raise(py, &error))?;
        let core::Embedded { width, values, tokens } = embedded;
        let values = PyBytes::new_with(py, values.len() * 4, |bytes| {
            for (bytes, value) in bytes.chunks_exact_mut(4).zip(&values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            Ok(())
        })?;
        Ok(Embedded { width, values: values.unbind(), tokens })
    }

    fn cancel(&self) {
        self.inner.cancel();
    }
}

#[pyfunction]
pub fn is_encoder(py: Python<'_>, path: PathBuf) -> PyResult<bool> {
    let describes = || Ok(core::EncoderSpec::describes(&Gguf::open(&path)?));
    py.detach(describes).map_err(|error: Error| raise_load(py, &error))
}
