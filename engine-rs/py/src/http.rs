//! The HTTP codec for Python: each class holds one type of `quiver-http` and forwards to it. No
//! rule of HTTP is decided here.
//!
//! Nothing detaches from the interpreter: the longest call copies a body, and most take less than
//! handing the GIL over would.
use std::borrow::Cow;

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};
use quiver_http as http;

create_exception!(
    quiver._engine,
    HttpError,
    PyValueError,
    "The peer's message is not HTTP that is taken: see `status`, `code` and `message`."
);

fn http_error(py: Python<'_>, error: &http::HttpError) -> PyErr {
    let raised = HttpError::new_err(error.message.to_string());
    let value = raised.value(py);
    let filled = value
        .setattr("status", error.code.status())
        .and_then(|()| value.setattr("code", error.code.name()))
        .and_then(|()| value.setattr("message", error.message.as_ref()));
    filled.err().unwrap_or(raised)
}

fn parser_error(py: Python<'_>, error: http::Error) -> PyErr {
    match error {
        http::Error::Http(error) => http_error(py, &error),
        http::Error::Misuse(message) => PyRuntimeError::new_err(message),
    }
}

fn encode_error(error: http::EncodeError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn header_list(py: Python<'_>, fields: &http::Fields) -> PyResult<Py<PyList>> {
    let pairs =
        fields.iter().map(|(name, value)| (PyBytes::new(py, &name.to_ascii_lowercase()), PyBytes::new(py, value)));
    Ok(PyList::new(py, pairs)?.unbind())
}

/// One `bytes` of several parts, each copied once.
fn joined<'py>(py: Python<'py>, parts: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, parts.iter().map(|part| part.len()).sum(), |mut target| {
        for part in parts {
            let (place, rest) = target.split_at_mut(part.len());
            place.copy_from_slice(part);
            target = rest;
        }
        Ok(())
    })
}

#[pyclass(frozen, module = "quiver._engine")]
pub struct RequestHead {
    inner: http::RequestHead,
    headers: PyOnceLock<Py<PyList>>,
}

#[pymethods]
impl RequestHead {
    #[getter]
    fn method(&self) -> &str {
        self.inner.method()
    }

    #[getter]
    fn target(&self) -> &str {
        self.inner.target()
    }

    #[getter]
    fn path(&self) -> &str {
        self.inner.path()
    }

    #[getter]
    fn query(&self) -> &str {
        self.inner.query()
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        Ok(self.headers.get_or_try_init(py, || header_list(py, &self.inner.fields))?.clone_ref(py))
    }

    #[getter]
    fn http10(&self) -> bool {
        self.inner.http10
    }

    #[getter]
    fn keep_alive(&self) -> bool {
        self.inner.keep_alive
    }

    #[getter]
    fn content_length(&self) -> Option<u64> {
        self.inner.content_length
    }

    #[getter]
    fn chunked(&self) -> bool {
        self.inner.chunked
    }

    #[getter]
    fn expect_continue(&self) -> bool {
        self.inner.expect_continue
    }

    #[getter]
    fn upgrade(&self) -> bool {
        self.inner.upgrade
    }

    #[getter]
    fn has_body(&self) -> bool {
        self.inner.has_body()
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.fields.raw())
    }

    fn header<'py>(&self, py: Python<'py>, name: &[u8]) -> Option<Bound<'py, PyBytes>> {
        self.inner.fields.get(name).map(|value| PyBytes::new(py, value))
    }

    fn __repr__(&self) -> String {
        format!("<RequestHead {} {}>", self.inner.method(), self.inner.target())
    }
}

#[pyclass(module = "quiver._engine")]
pub struct RequestParser {
    inner: http::RequestParser,
}

#[pymethods]
impl RequestParser {
    #[new]
    #[pyo3(signature = (*, max_head = 32768, max_body = 16777216))]
    fn new(max_head: usize, max_body: usize) -> Self {
        RequestParser { inner: http::RequestParser::new(http::Limits { head: max_head, body: max_body }) }
    }

    fn receive(&mut self, data: &[u8]) {
        self.inner.receive(data);
    }

    fn head(&mut self, py: Python<'_>) -> PyResult<Option<RequestHead>> {
        let head = self.inner.head().map_err(|error| parser_error(py, error))?;
        Ok(head.map(|inner| RequestHead { inner, headers: PyOnceLock::new() }))
    }

    fn body<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let body = self.inner.body().map_err(|error| parser_error(py, error))?;
        Ok(body.map(|body| PyBytes::new(py, body)))
    }

    fn unread<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.inner.unread())
    }

    #[getter]
    fn buffered(&self) -> usize {
        self.inner.buffered()
    }
}

#[pyclass(frozen, module = "quiver._engine")]
pub struct ResponseHead {
    inner: http::ResponseHead,
    headers: PyOnceLock<Py<PyList>>,
}

#[pymethods]
impl ResponseHead {
    #[getter]
    fn status(&self) -> u16 {
        self.inner.status
    }

    #[getter]
    fn reason<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.reason())
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        Ok(self.headers.get_or_try_init(py, || header_list(py, &self.inner.fields))?.clone_ref(py))
    }

    #[getter]
    fn content_length(&self) -> Option<u64> {
        self.inner.content_length
    }

    #[getter]
    fn chunked(&self) -> bool {
        self.inner.chunked
    }

    #[getter]
    fn keep_alive(&self) -> bool {
        self.inner.keep_alive
    }

    fn header<'py>(&self, py: Python<'py>, name: &[u8]) -> Option<Bound<'py, PyBytes>> {
        self.inner.fields.get(name).map(|value| PyBytes::new(py, value))
    }

    fn __repr__(&self) -> String {
        format!("<ResponseHead {}>", self.inner.status)
    }
}

#[pyclass(module = "quiver._engine")]
pub struct ResponseParser {
    inner: http::ResponseParser,
}

#[pymethods]
impl ResponseParser {
    #[new]
    #[pyo3(signature = (*, method, max_head = 65536))]
    fn new(method: &str, max_head: usize) -> Self {
        ResponseParser { inner: http::ResponseParser::new(method, max_head) }
    }

    fn receive(&mut self, data: &[u8]) {
        self.inner.receive(data);
    }

    fn head(&mut self, py: Python<'_>) -> PyResult<Option<ResponseHead>> {
        let head = self.inner.head().map_err(|error| parser_error(py, error))?;
        Ok(head.map(|inner| ResponseHead { inner, headers: PyOnceLock::new() }))
    }

    fn body<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let body = self.inner.body().map_err(|error| parser_error(py, error))?;
        Ok(PyBytes::new(py, body))
    }

    #[getter]
    fn complete(&self) -> bool {
        self.inner.complete()
    }

    #[getter]
    fn reusable(&self) -> bool {
        self.inner.reusable()
    }
}

type Headers = Vec<(PyBackedBytes, PyBackedBytes)>;

fn pairs(headers: &Headers) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
}

#[pyfunction]
pub fn encode_request<'py>(
    py: Python<'py>,
    method: PyBackedStr,
    target: PyBackedStr,
    headers: Headers,
    body: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoder = http::RequestEncoder { method: &method, target: &target, length: body.map(<[u8]>::len) };
    let head = encoder.head(pairs(&headers)).map_err(encode_error)?;
    joined(py, &[&head, body.unwrap_or_default()])
}

#[pyfunction]
#[pyo3(signature = (status, headers, body, *, close, http10 = false, head_only = false))]
pub fn encode_response<'py>(
    py: Python<'py>,
    status: u16,
    headers: Headers,
    body: Option<&[u8]>,
    close: bool,
    http10: bool,
    head_only: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let encoder = http::ResponseEncoder { status, length: body.map(<[u8]>::len), close, http10 };
    let head = encoder.head(pairs(&headers)).map_err(encode_error)?;
    let body = if head_only || !encoder.has_body() { None } else { body };
    joined(py, &[&head, body.unwrap_or_default()])
}

#[pyfunction]
pub fn encode_chunk<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let (before, after) = http::chunk_frame(data);
    joined(py, &[&before, data, after])
}

#[pyclass(module = "quiver._engine")]
pub struct SseScanner {
    inner: http::SseScanner,
}

#[pymethods]
impl SseScanner {
    #[new]
    #[pyo3(signature = (*, max_event = 1048576))]
    fn new(max_event: usize) -> Self {
        SseScanner { inner: http::SseScanner::new(max_event) }
    }

    fn feed<'py>(&mut self, data: Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyBytes>> {
        let py = data.py();
        match self.inner.feed(data.as_bytes()).map_err(|error| http_error(py, &error))? {
            // The usual case: what came was whole events, which go on as the very same object.
            Cow::Borrowed(events) if events.len() == data.as_bytes().len() => Ok(data),
            events => Ok(PyBytes::new(py, &events)),
        }
    }

    fn rest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.rest())
    }

    #[getter]
    fn events(&self) -> u64 {
        self.inner.events()
    }

    #[getter]
    fn done(&self) -> bool {
        self.inner.done()
    }

    #[getter]
    fn usage<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.inner.usage().map(|usage| PyBytes::new(py, usage))
    }
}
