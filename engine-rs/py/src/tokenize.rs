//! Tokenizers and chat templates of model files for Python: for tests, tools and counting, not for serving, which goes
//! through the engine. Each call names a file; the tokenizer of the newest one is kept.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quiver_core::error::{Error, Result};
use quiver_core::gguf::Gguf;
use quiver_core::template::ChatTemplate;
use quiver_core::tokenizer::Tokenizer;

use crate::errors::{raise, raise_load};

/// A file at a moment: another size or time means other contents.
type Identity = (PathBuf, u64, Option<SystemTime>);

static NEWEST: Mutex<Option<(Identity, Arc<Tokenizer>)>> = Mutex::new(None);

fn identity(path: &Path) -> Result<Identity> {
    let found =
        std::fs::metadata(path).map_err(|source| Error::Io { path: path.to_owned(), operation: "read", source })?;
    Ok((path.to_owned(), found.len(), found.modified().ok()))
}

fn tokenizer(path: &Path) -> Result<Arc<Tokenizer>> {
    let identity = identity(path)?;
    let mut newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
    match &*newest {
        Some((known, tokenizer)) if *known == identity => Ok(Arc::clone(tokenizer)),
        _ => {
            let tokenizer = Arc::new(Tokenizer::from_gguf(&Gguf::open(path)?)?);
            *newest = Some((identity, Arc::clone(&tokenizer)));
            Ok(tokenizer)
        }
    }
}

#[pyfunction]
#[pyo3(signature = (path, text, *, add_special, parse_special))]
pub fn tokenize(
    py: Python<'_>,
    path: PathBuf,
    text: &str,
    add_special: bool,
    parse_special: bool,
) -> PyResult<Vec<u32>> {
    let encode = || Ok(tokenizer(&path)?.encode(text, add_special, parse_special));
    py.detach(encode).map_err(|error: Error| raise_load(py, &error))
}

#[pyfunction]
pub fn detokenize(py: Python<'_>, path: PathBuf, tokens: Vec<u32>) -> PyResult<Bound<'_, PyBytes>> {
    let decode = || Ok(tokenizer(&path)?.decode(&tokens));
    let bytes = py.detach(decode).map_err(|error: Error| raise_load(py, &error))?;
    Ok(PyBytes::new(py, &bytes))
}

#[pyfunction]
#[pyo3(signature = (path, messages, *, extra = None, add_generation_prompt = true))]
pub fn render_chat(
    py: Python<'_>,
    path: PathBuf,
    messages: &[u8],
    extra: Option<&[u8]>,
    add_generation_prompt: bool,
) -> PyResult<String> {
    let json = |error: serde_json::Error| PyValueError::new_err(error.to_string());
    let messages: serde_json::Value = serde_json::from_slice(messages).map_err(json)?;
    let extra = serde_json::from_slice(extra.unwrap_or(b"{}")).map_err(json)?;
    let load = || {
        let gguf = Gguf::open(&path)?;
        ChatTemplate::from_gguf(&gguf, &*tokenizer(&path)?)
    };
    let template = py.detach(load).map_err(|error: Error| raise_load(py, &error))?;
    let missing = || Error::Template("the model file has none".to_owned());
    let render = || template.ok_or_else(missing)?.render(&messages, &extra, add_generation_prompt);
    py.detach(render).map_err(|error| raise(py, &error))
}
