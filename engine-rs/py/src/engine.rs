//! The engine for Python. Every call but loading and `close` returns at once; those two run without the GIL. The engine's own threads never touch Python.
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use quiver_core::engine as core;
use quiver_core::engine::loading;
use quiver_core::error::Result;
use quiver_core::executor::ExecutorOptions;
use quiver_core::request::GenerateRequest;

use crate::errors::{raise, raise_forked, raise_load};
use crate::evaluate::parse_kv;
use crate::events::to_python;
use crate::loading::LoadProgress;
use crate::wake::Wake;

#[pyclass(frozen, get_all, module = "quiver._engine")]
#[derive(Clone)]
pub struct ModelInfo {
    architecture: String,
    name: String,
    parameters: u64,
    context_length: usize,
    vocabulary: usize,
    size_bytes: u64,
    file_type: String,
    has_chat_template: bool,
    chat_template: String,
    controls: BTreeMap<String, u32>,
}

#[pymethods]
impl ModelInfo {
    fn __repr__(&self) -> String {
        let Self { architecture, parameters, file_type, context_length, .. } = self;
        format!("<ModelInfo {architecture} {parameters} parameters {file_type}, context {context_length}>")
    }
}

impl From<loading::ModelInfo> for ModelInfo {
    fn from(info: loading::ModelInfo) -> Self {
        Self {
            architecture: info.architecture,
            name: info.name,
            parameters: info.parameters,
            context_length: info.context_length,
            vocabulary: info.vocabulary,
            size_bytes: info.size_bytes,
            file_type: info.file_type,
            has_chat_template: info.has_chat_template,
            chat_template: info.chat_template,
            controls: info.controls,
        }
    }
}

#[pyclass(frozen, get_all, module = "quiver._engine")]
pub struct EngineStatistics {
    live: usize,
    paused: usize,
    waiting: usize,
    parked: usize,
    finished: u64,
    failed: u64,
    cancelled: u64,
    prompt_tokens: u64,
    reused_tokens: u64,
    prefix_hits: u64,
    completion_tokens: u64,
    drafted_tokens: u64,
    accepted_tokens: u64,
    steps: u64,
    step_sequences: u64,
    step_tokens: u64,
    preemptions: u64,
    retries: u64,
    kv_bytes: usize,
    kv_blocks_used: usize,
    kv_blocks_kept: usize,
    kv_blocks: usize,
    busy_seconds: f64,
    prompt_seconds: f64,
    completion_seconds: f64,
}

#[pymethods]
impl EngineStatistics {
    fn __repr__(&self) -> String {
        let Self { live, paused, waiting, steps, .. } = self;
        format!("<EngineStatistics {live} live ({paused} paused), {waiting} waiting, {steps} steps>")
    }
}

impl From<core::statistics::Statistics> for EngineStatistics {
    fn from(now: core::statistics::Statistics) -> Self {
        Self {
            live: now.live,
            paused: now.paused,
            waiting: now.waiting,
            parked: now.parked,
            finished: now.finished,
            failed: now.failed,
            cancelled: now.cancelled,
            prompt_tokens: now.prompt_tokens,
            reused_tokens: now.reused_tokens,
            prefix_hits: now.prefix_hits,
            completion_tokens: now.completion_tokens,
            drafted_tokens: now.drafted_tokens,
            accepted_tokens: now.accepted_tokens,
            steps: now.steps,
            step_sequences: now.step_sequences,
            step_tokens: now.step_tokens,
            preemptions: now.preemptions,
            retries: now.retries,
            kv_bytes: now.kv_bytes,
            kv_blocks_used: now.blocks_used,
            kv_blocks_kept: now.blocks_kept,
            kv_blocks: now.blocks,
            busy_seconds: now.busy.as_secs_f64(),
            prompt_seconds: now.prompt_time.as_secs_f64(),
            completion_seconds: now.completion_time.as_secs_f64(),
        }
    }
}

#[pyclass(frozen, module = "quiver._engine")]
pub struct Engine {
    inner: ManuallyDrop<core::Engine>,
    wake: Arc<Wake>,
    info: ModelInfo,
    numbers: AtomicU64,
    process: u32,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (path, *, threads = 0, context_length = None, max_sequences = 16, kv_type = "f16",
        kv_bytes = None, speculate = true, progress = None))]
    #[allow(clippy::too_many_arguments)] // one for each option
    fn new(
        py: Python<'_>,
        path: PathBuf,
        threads: usize,
        context_length: Option<usize>,
        max_sequences: usize,
        kv_type: &str,
        kv_bytes: Option<usize>,
        speculate: bool,
        progress: Option<&LoadProgress>,
    ) -> PyResult<Self> {
        let loading = ExecutorOptions { threads, context_length, kv: parse_kv(kv_type)?, ..ExecutorOptions::default() };
        let options =
            core::RunOptions { max_sequences, kv_bytes, speculate, seed: entropy(), ..core::RunOptions::default() };
        let watch = progress.map_or_else(Arc::default, LoadProgress::watch);
        let wake = Arc::new(Wake::new()?);
        let signal = Arc::clone(&wake);
        let start = || -> Result<(core::Engine, ModelInfo)> {
            let model = loading::open(&path, &loading, &watch)?;
            let wake = Box::new(move || signal.signal());
            let engine = core::Engine::start(model.executor, model.language, options, wake)?;
            Ok((engine, model.info.into()))
        };
        let (engine, info) = py.detach(start).map_err(|error| raise_load(py, &error))?;
        Ok(Self {
            inner: ManuallyDrop::new(engine),
            wake,
            info,
            numbers: AtomicU64::new(1),
            process: std::process::id(),
        })
    }

    #[getter]
    fn fd(&self) -> i32 {
        self.wake.fd()
    }

    #[getter]
    fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    fn submit(&self, py: Python<'_>, request: &[u8]) -> PyResult<u64> {
        let engine = self.here(py)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let submitted = GenerateRequest::from_json(request).and_then(|request| engine.submit(number, request));
        submitted.map(|()| number).map_err(|error| raise(py, &error))
    }

    fn cancel(&self, py: Python<'_>, request: u64) -> PyResult<()> {
        self.here(py)?.cancel(request);
        Ok(())
    }

    fn acknowledge(&self, py: Python<'_>, request: u64, tokens: u32) -> PyResult<()> {
        self.here(py)?.acknowledge(request, tokens);
        Ok(())
    }

    fn drain(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let engine = self.here(py)?;
        // First the descriptor, then the events: a signal in between leaves it readable.
        self.wake.clear();
        let events = engine.drain().into_iter();
        events.map(|event| to_python(py, event)).collect()
    }

    fn statistics(&self, py: Python<'_>) -> PyResult<EngineStatistics> {
        Ok(self.here(py)?.statistics().into())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.here(py)?;
        py.detach(|| engine.close());
        Ok(())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let Ok(engine) = self.here(py) else {
            return format!("<Engine {}: of the parent process>", self.info.architecture);
        };
        let now = engine.statistics();
        format!("<Engine {}: {} live, {} waiting>", self.info.architecture, now.live, now.waiting)
    }
}

impl Engine {
    /// The engine, unless this process is a fork of the one whose threads run it.
    fn here(&self, py: Python<'_>) -> PyResult<&core::Engine> {
        if std::process::id() == self.process { Ok(&self.inner) } else { Err(raise_forked(py)) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // In a fork there are no threads to end, and waiting for them would never return.
        if std::process::id() == self.process {
            // SAFETY: dropped here only, and never used again.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

/// A number that differs from run to run: what `RandomState` is seeded with.
fn entropy() -> u64 {
    RandomState::new().build_hasher().finish()
}
