//! The core's errors as Python exceptions: one class for each thing a caller does differently, the core's code on each.
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use quiver_core::error::Error;

create_exception!(quiver._engine, EngineError, PyException, "The engine cannot do what was asked: see `code`.");
create_exception!(quiver._engine, ModelLoadError, EngineError, "The model file cannot be read, or is not supported.");
create_exception!(quiver._engine, InvalidRequest, EngineError, "The request breaks a rule: see `field` and `reason`.");
create_exception!(
    quiver._engine,
    ContextOverflow,
    EngineError,
    "The request does not fit into the model's context: see `prompt`, `requested` and `limit`."
);
create_exception!(quiver._engine, EngineStopped, EngineError, "The engine is closed.");

/// The exception for a failure while running.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    let raised = match error {
        Error::InvalidRequest { .. } => InvalidRequest::new_err(text),
        Error::ContextOverflow { .. } => ContextOverflow::new_err(text),
        Error::Stopped => EngineStopped::new_err(text),
        _ => EngineError::new_err(text),
    };
    fill(py, raised, error)
}

/// The exception for a failure while loading, whatever it is.
pub fn raise_load(py: Python<'_>, error: &Error) -> PyErr {
    fill(py, ModelLoadError::new_err(error.to_string()), error)
}

/// Refused in a process that is a copy of the one with the engine's threads.
pub fn raise_forked(py: Python<'_>) -> PyErr {
    let text = "the engine belongs to the parent process: after a fork its threads are not here";
    let raised = EngineError::new_err(text);
    let filled = raised.value(py).setattr("code", "engine_forked");
    filled.err().unwrap_or(raised)
}

fn fill(py: Python<'_>, raised: PyErr, error: &Error) -> PyErr {
    let value = raised.value(py);
    let filled = value.setattr("code", error.code()).and_then(|()| match error {
        Error::InvalidRequest { field, reason } => {
            value.setattr("field", field)?;
            value.setattr("reason", reason)
        }
        Error::ContextOverflow { prompt, requested, limit } => {
            value.setattr("prompt", prompt)?;
            value.setattr("requested", requested)?;
            value.setattr("limit", limit)
        }
        _ => Ok(()),
    });
    filled.err().unwrap_or(raised)
}
