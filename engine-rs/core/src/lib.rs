//! Inference core: bytes of a GGUF file and requests in, tokens out. Knows nothing of Python.

pub mod error;
pub mod executor;
pub mod gguf;
pub mod event;
pub mod request;
pub mod sampler;
pub mod stop;
pub mod kernels;
pub mod kv;
pub mod linear;
pub mod model;
pub mod testing;
pub mod scheduler;
pub mod template;
pub mod tokenizer;
pub mod engine;
