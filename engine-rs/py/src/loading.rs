//! Loading as Python sees it: how far one is, and what it would take. Neither waits for the other's thread.
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use quiver_core::engine::{RunOptions, loading};
use quiver_core::estimate::Estimate;
use quiver_core::executor::ExecutorOptions;
use quiver_core::load_watch::LoadWatch;

use crate::errors::raise_load;
use crate::evaluate::parse_kv;

#[pyclass(frozen, module = "quiver._engine")]
#[derive(Default)]
pub struct LoadProgress {
    watch: Arc<LoadWatch>,
}

#[pymethods]
impl LoadProgress {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn stage(&self) -> &'static str {
        self.watch.stage().name()
    }

    #[getter]
    fn done(&self) -> u64 {
        self.watch.bytes().0
    }

    #[getter]
    fn total(&self) -> u64 {
        self.watch.bytes().1
    }

    #[getter]
    fn fraction(&self) -> f64 {
        match self.watch.bytes() {
            (_, 0) => 0.0,
            (done, total) => done as f64 / total as f64,
        }
    }

    #[getter]
    fn cancelled(&self) -> bool {
        self.watch.cancelled()
    }

    fn cancel(&self) {
        self.watch.cancel();
    }

    fn __repr__(&self) -> String {
        let (done, total) = self.watch.bytes();
        format!("<LoadProgress {}: {done} of {total} bytes>", self.stage())
    }
}

impl LoadProgress {
    pub fn watch(&self) -> Arc<LoadWatch> {
        Arc::clone(&self.watch)
    }
}

#[pyclass(frozen, get_all, module = "quiver._engine")]
pub struct MemoryEstimate {
    weights: u64,
    kv: u64,
    kv_tokens: u64,
    scratch: u64,
    total: u64,
    trained_context: u64,
}

#[pymethods]
impl MemoryEstimate {
    fn __repr__(&self) -> String {
        let Self { total, weights, kv, scratch, .. } = self;
        format!("<MemoryEstimate {total} bytes: {weights} weights, {kv} keys and values, {scratch} scratch>")
    }
}

impl From<Estimate> for MemoryEstimate {
    fn from(found: Estimate) -> Self {
        Self {
            total: found.total(),
            weights: found.weights,
            kv: found.kv,
            kv_tokens: found.kv_tokens,
            scratch: found.scratch,
            trained_context: found.trained_context,
        }
    }
}

#[pyfunction]
#[pyo3(signature = (path, *, context_length = None, max_sequences = 16, kv_type = "f16"))]
pub fn estimate_memory(
    py: Python<'_>,
    path: PathBuf,
    context_length: Option<usize>,
    max_sequences: usize,
    kv_type: &str,
) -> PyResult<MemoryEstimate> {
    let options = ExecutorOptions { context_length, kv: parse_kv(kv_type)?, ..ExecutorOptions::default() };
    let run = RunOptions { max_sequences, ..RunOptions::default() };
    let found = py.detach(|| loading::estimate(&path, &options, &run));
    found.map(MemoryEstimate::from).map_err(|error| raise_load(py, &error))
}
