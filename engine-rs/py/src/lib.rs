//! `quiver._engine`: the table of contents of the Python binding.
use pyo3::prelude::*;

mod embed;
mod engine;
mod errors;
mod evaluate;
mod events;
mod http;
mod loading;
mod tokenize;
mod wake;

#[pymodule]
mod _engine {
    use super::*;

    #[pymodule_export]
    use http::{HttpError, RequestHead, RequestParser, ResponseHead, ResponseParser, SseScanner};
    #[pymodule_export]
    use http::{encode_chunk, encode_request, encode_response};

    #[pymodule_export]
    use super::embed::{Embedded, EmbeddingTicket, Encoder, EncoderInfo, is_encoder};
    #[pymodule_export]
    use super::engine::{Engine, EngineStatistics, ModelInfo};
    #[pymodule_export]
    use super::errors::{ContextOverflow, EngineError, EngineStopped, InvalidRequest, ModelLoadError};
    #[pymodule_export]
    use super::events::{Failed, Finished, Started, Text, TokenLogprob};

    #[pymodule_export]
    use super::evaluate::evaluate;

    #[pymodule_export]
    use super::loading::{LoadProgress, MemoryEstimate, estimate_memory};

    #[pymodule_export]
    use super::tokenize::{detokenize, render_chat, tokenize};

    #[pymodule_export]
    const LAST_CHUNK: &[u8] = quiver_http::LAST_CHUNK;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
