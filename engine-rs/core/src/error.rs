//! The core's one error type. Every way in which loading or running a model can fail is a variant here, its fields
//! carrying the file, tensor, shape or number that a person needs to act; nothing else in the crate defines an error.

use std::path::PathBuf;

/// A failure of the inference core. `code` is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{}: cannot {operation}: {source}", path.display())]
    Io { path: PathBuf, operation: &'static str, source: std::io::Error },

    #[error("{}: not a GGUF file: {found}", path.display())]
    NotGguf { path: PathBuf, found: String },

    #[error("{}: GGUF version {version} is not supported (2 and 3 are)", path.display())]
    UnsupportedVersion { path: PathBuf, version: u32 },

    /// The file ends inside `what`, which starts at `offset` and needs `needed` bytes where `have` are left.
    #[error("{}: truncated: {what} at offset {offset} needs {needed} bytes, {have} left", path.display())]
    Truncated { path: PathBuf, what: String, offset: u64, needed: u64, have: u64 },

    #[error("{}: malformed: {what}", path.display())]
    Malformed { path: PathBuf, what: String },

    #[error("{}: metadata key `{key}` is missing", path.display())]
    MissingKey { path: PathBuf, key: String },

    #[error("{}: metadata key `{key}` should be {want}, is {got}", path.display())]
    WrongKind { path: PathBuf, key: String, want: &'static str, got: String },

    #[error("architecture `{name}` is not supported (supported: {supported})")]
    UnsupportedArchitecture { name: String, supported: String },

    /// A supported architecture with a feature that the executor does not compute, such as experts.
    #[error("unsupported model: {what}")]
    UnsupportedModel { what: String },

    #[error("tensor `{tensor}` has the unsupported type {name}")]
    UnsupportedTensorType { tensor: String, name: String },

    #[error("tensor `{tensor}` is missing")]
    MissingTensor { tensor: String },

    #[error("tensor `{tensor}` should be {expected}, is {got}")]
    BadTensor { tensor: String, expected: String, got: String },

    #[error("unsupported tokenizer: {what}")]
    UnsupportedTokenizer { what: String },

    #[error("chat template: {0}")]
    Template(String),

    #[error("{prompt} prompt tokens and {requested} to generate exceed the context of {limit} tokens")]
    ContextOverflow { prompt: usize, requested: usize, limit: usize },

    /// The answer cannot go on within its grammar, or the grammar takes more than it may.
    #[error("grammar: {0}")]
    Grammar(String),

    #[error("`{field}`: {reason}")]
    InvalidRequest { field: String, reason: String },

    #[error("out of memory: {what} needs {bytes} bytes")]
    OutOfMemory { what: String, bytes: usize },

    /// The key-value cache could not hold the request even if there were no other.
    #[error("{needed} positions of the key-value cache needed, it has room for {available}")]
    KvFull { needed: usize, available: usize },

    #[error("the deadline passed before generation began: {waited_ms} ms in the queue")]
    DeadlineExceeded { waited_ms: u64 },

    /// Every logit is NaN or minus infinity: damaged weights, or a bias against the whole vocabulary.
    #[error("no token can follow: the logits hold no usable number")]
    NoFiniteLogits,

    #[error("the load was cancelled")]
    LoadCancelled,

    #[error("the engine has stopped")]
    Stopped,

    /// A broken promise inside the engine: never the caller's fault.
    #[error("internal error: {0}")]
    Internal(String),

    #[error("tensor operation: {0}")]
    Candle(#[from] candle_core::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::InvalidRequest { field: field.into(), reason: reason.into() }
    }

    /// The stable name of this kind of failure, for clients and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Io { .. } => "model_unreadable",
            Error::NotGguf { .. } => "not_gguf",
            Error::UnsupportedVersion { .. } => "gguf_version",
            Error::Truncated { .. } => "gguf_truncated",
            Error::Malformed { .. } => "gguf_malformed",
            Error::MissingKey { .. } => "gguf_missing_key",
            Error::WrongKind { .. } => "gguf_wrong_kind",
            Error::UnsupportedArchitecture { .. } => "unsupported_architecture",
            Error::UnsupportedModel { .. } => "unsupported_model",
            Error::UnsupportedTensorType { .. } => "unsupported_tensor_type",
            Error::MissingTensor { .. } => "missing_tensor",
            Error::BadTensor { .. } => "bad_tensor",
            Error::UnsupportedTokenizer { .. } => "unsupported_tokenizer",
            Error::Template(_) => "chat_template",
            Error::ContextOverflow { .. } => "context_length_exceeded",
            Error::Grammar(_) => "grammar",
            Error::InvalidRequest { .. } => "invalid_request",
            Error::OutOfMemory { .. } => "out_of_memory",
            Error::KvFull { .. } => "kv_full",
            Error::DeadlineExceeded { .. } => "deadline_exceeded",
            Error::NoFiniteLogits => "no_finite_logits",
            Error::LoadCancelled => "load_cancelled",
            Error::Stopped => "engine_stopped",
            Error::Internal(_) => "engine_internal",
            Error::Candle(_) => "engine_tensor",
        }
    }
}
