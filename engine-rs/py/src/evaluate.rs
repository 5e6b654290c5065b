//! The logits of a whole token sequence for Python: for parity tests and perplexity, not for serving.
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quiver_core::error::Result;
use quiver_core::executor::{BLOCK, Backend, BlockId, Chunk, ExecutorOptions, KvType, Want, load};
use quiver_core::gguf::Gguf;

/// Tokens computed at a time: bounds the memory of a long sequence.
const CHUNK: usize = 128;

#[pyfunction]
#[pyo3(signature = (path, tokens, *, kv_type = "f32", backend = "fused"))]
pub fn evaluate<'py>(
    py: Python<'py>,
    path: PathBuf,
    tokens: Vec<u32>,
    kv_type: &str,
    backend: &str,
) -> PyResult<Bound<'py, PyBytes>> {
    let backend = match backend {
        "fused" => Backend::Fused,
        "candle" => Backend::Candle,
        other => return Err(PyValueError::new_err(format!("`backend` should be fused or candle, is {other}"))),
    };
    let options = ExecutorOptions { kv: parse_kv(kv_type)?, backend, ..ExecutorOptions::default() };
    let logits = py.detach(|| logits(&path, &tokens, &options));
    let logits = logits.map_err(|error| PyValueError::new_err(error.to_string()))?;
    let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_ne_bytes()).collect();
    Ok(PyBytes::new(py, &bytes))
}

fn logits(path: &std::path::Path, tokens: &[u32], options: &ExecutorOptions) -> Result<Vec<f32>> {
    let mut executor = load(Arc::new(Gguf::open(path)?), options)?;
    let blocks: Vec<BlockId> = (0..).take(tokens.len().div_ceil(BLOCK)).collect();
    let mut rows = Vec::new();
    for (number, tokens) in tokens.chunks(CHUNK).enumerate() {
        let chunk = Chunk { start: number * CHUNK, tokens, want: Want::All, blocks: &blocks };
        rows.extend(executor.step(&[chunk])?.rows);
    }
    Ok(rows)
}

/// How keys and values are kept.
pub fn parse_kv(name: &str) -> PyResult<KvType> {
    match name {
        "f16" => Ok(KvType::F16),
        "f32" => Ok(KvType::F32),
        "q8_0" => Ok(KvType::Q8),
        other => Err(PyValueError::new_err(format!("`kv_type` should be f16, f32 or q8_0, is {other}"))),
    }
}
