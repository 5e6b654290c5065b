//! The logits of a whole token sequence for Python: for parity tests and perplexity, not for serving.
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quiver_core::error::Result;
use quiver_core::executor::{BLOCK, BlockId, Chunk, ExecutorOptions, KvType, Want, load};
use quiver_core::gguf::Gguf;

/// Tokens computed at a time: bounds the memory of a long sequence.
const CHUNK: usize = 128;

#[pyfunction]
#[pyo3(signature = (path, tokens, *, kv_type = "f32"))]
pub fn evaluate<'py>(py: Python<'py>, path: PathBuf, tokens: Vec<u32>, kv_type: &str) -> PyResult<Bound<'py, PyBytes>> {
    let kv = match kv_type {
        "f16" => KvType::F16,
        "f32" => KvType::F32,
        other => {
            let message = format!("`kv_type` should be f16 or f32, is {other}");
            return Err(PyValueError::new_err(message));
        }
    };
    let logits = py.detach(|| logits(&path, &tokens, kv));
    let logits = logits.map_err(|error| PyValueError::new_err(error.to_string()))?;
    let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_ne_bytes()).collect();
    Ok(PyBytes::new(py, &bytes))
}

fn logits(path: &std::path::Path, tokens: &[u32], kv: KvType) -> Result<Vec<f32>> {
    let options = ExecutorOptions { kv, ..ExecutorOptions::default() };
    let mut executor = load(Arc::new(Gguf::open(path)?), &options)?;
    let blocks: Vec<BlockId> = (0..).take(tokens.len().div_ceil(BLOCK)).collect();
    let mut rows = Vec::new();
    for (number, tokens) in tokens.chunks(CHUNK).enumerate() {
        let chunk = Chunk { start: number * CHUNK, tokens, want: Want::All, blocks: &blocks };
        rows.extend(executor.step(&[chunk])?.rows);
    }
    Ok(rows)
}
