//! The engine's events as Python classes: frozen, comparable, and fit for `match`. Times become seconds here.
#![allow(clippy::too_many_arguments)] // a constructor takes a value for each field
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use quiver_core::event as core;

#[pyclass(frozen, eq, module = "quiver._engine")]
#[derive(PartialEq)]
pub struct TokenLogprob {
    inner: core::TokenLogprob,
}

#[pymethods]
impl TokenLogprob {
    #[new]
    #[pyo3(signature = (token, bytes, logprob, top = Vec::new()))]
    fn new(token: u32, bytes: Vec<u8>, logprob: f32, top: Vec<Py<TokenLogprob>>) -> Self {
        let top = top.iter().map(|score| score.get().inner.clone()).collect();
        Self { inner: core::TokenLogprob { token, bytes, logprob, top } }
    }

    #[getter]
    fn token(&self) -> u32 {
        self.inner.token
    }

    #[getter]
    fn bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.bytes)
    }

    #[getter]
    fn logprob(&self) -> f32 {
        self.inner.logprob
    }

    #[getter]
    fn top(&self) -> Vec<TokenLogprob> {
        self.inner.top.iter().cloned().map(wrap).collect()
    }

    fn __repr__(&self) -> String {
        let core::TokenLogprob { token, logprob, .. } = &self.inner;
        format!("TokenLogprob(token={token}, logprob={logprob})")
    }
}

fn wrap(inner: core::TokenLogprob) -> TokenLogprob {
    TokenLogprob { inner }
}

#[pyclass(frozen, eq, get_all, new = "from_fields", module = "quiver._engine")]
#[derive(PartialEq)]
pub struct Started {
    request: u64,
    prompt_tokens: usize,
}

#[pymethods]
impl Started {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("request", "prompt_tokens")
    }

    fn __repr__(&self) -> String {
        let Self { request, prompt_tokens } = self;
        format!("Started(request={request}, prompt_tokens={prompt_tokens})")
    }
}

#[pyclass(frozen, eq, module = "quiver._engine")]
#[derive(PartialEq)]
pub struct Text {
    #[pyo3(get)]
    request: u64,
    #[pyo3(get)]
    text: String,
    #[pyo3(get)]
    completion_tokens: u32,
    logprobs: Vec<core::TokenLogprob>,
}

#[pymethods]
impl Text {
    #[new]
    #[pyo3(signature = (request, text, completion_tokens, logprobs = Vec::new()))]
    fn new(request: u64, text: String, completion_tokens: u32, logprobs: Vec<Py<TokenLogprob>>) -> Self {
        let logprobs = logprobs.iter().map(|score| score.get().inner.clone()).collect();
        Self { request, text, completion_tokens, logprobs }
    }

    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str, &'static str) {
        ("request", "text", "completion_tokens", "logprobs")
    }

    #[getter]
    fn logprobs(&self) -> Vec<TokenLogprob> {
        self.logprobs.iter().cloned().map(wrap).collect()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let text = PyString::new(py, &self.text).repr()?;
        let (request, tokens) = (self.request, self.completion_tokens);
        Ok(format!("Text(request={request}, text={text}, completion_tokens={tokens})"))
    }
}

#[pyclass(frozen, eq, get_all, new = "from_fields", module = "quiver._engine")]
#[derive(PartialEq)]
pub struct Finished {
    request: u64,
    reason: String,
    prompt_tokens: usize,
    completion_tokens: u32,
    queue_seconds: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    first_token_seconds: f64,
    cached_tokens: usize,
    drafted_tokens: u32,
    accepted_tokens: u32,
}

#[pymethods]
impl Finished {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str) {
        ("request", "reason")
    }

    fn __repr__(&self) -> String {
        let Self { request, reason, completion_tokens, .. } = self;
        format!("Finished(request={request}, reason='{reason}', completion_tokens={completion_tokens})")
    }
}

#[pyclass(frozen, eq, get_all, new = "from_fields", module = "quiver._engine")]
#[derive(PartialEq)]
pub struct Failed {
    request: u64,
    code: String,
    message: String,
}

#[pymethods]
impl Failed {
    #[classattr]
    fn __match_args__() -> (&'static str, &'static str, &'static str) {
        ("request", "code", "message")
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let message = PyString::new(py, &self.message).repr()?;
        let Self { request, code, .. } = self;
        Ok(format!("Failed(request={request}, code='{code}', message={message})"))
    }
}

/// An event as the Python object of its class.
pub fn to_python(py: Python<'_>, event: core::Event) -> PyResult<Py<PyAny>> {
    Ok(match event {
        core::Event::Started { id, prompt_tokens } => Py::new(py, Started { request: id, prompt_tokens })?.into_any(),
        core::Event::Text { id, text, tokens, logprobs } => {
            Py::new(py, Text { request: id, text, completion_tokens: tokens, logprobs })?.into_any()
        }
        core::Event::Finished { id, reason, prompt_tokens, completion_tokens, timings, work } => Py::new(
            py,
            Finished {
                request: id,
                reason: reason.name().to_owned(),
                prompt_tokens,
                completion_tokens,
                queue_seconds: timings.queue.as_secs_f64(),
                prefill_seconds: timings.prefill.as_secs_f64(),
                decode_seconds: timings.decode.as_secs_f64(),
                first_token_seconds: timings.first_token.as_secs_f64(),
                cached_tokens: work.cached_tokens,
                drafted_tokens: work.drafted_tokens,
                accepted_tokens: work.accepted_tokens,
            },
        )?
        .into_any(),
        core::Event::Failed { id, code, message } => {
            Py::new(py, Failed { request: id, code: code.to_owned(), message })?.into_any()
        }
    })
}
