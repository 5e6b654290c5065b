//! Inference core: bytes of a GGUF file and requests in, tokens out. Knows nothing of Python.

pub mod error;
pub mod executor;
pub mod gguf;
