//! Inference core: bytes of a GGUF file and requests in, tokens out. Knows nothing of Python.

pub mod encoder;
pub mod engine;
pub mod error;
pub mod estimate;
pub mod event;
pub mod executor;
pub mod gguf;
pub mod grammar;
pub mod kv;
pub mod linear;
pub mod load_watch;
pub mod model;
pub mod request;
pub mod sampler;
mod sandbox;
pub mod scheduler;
pub mod stop;
pub mod template;
pub mod testing;
pub mod tokenizer;

pub use quiver_kernels as kernels;
