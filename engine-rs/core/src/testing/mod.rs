//! What tests are built from, in this crate and in those above it: repeatable noise and small GGUF files. Shipped so that
//! nobody needs a second copy; nothing in the engine uses it.

mod tiny;
mod variety;
mod writer;

pub use quiver_kernels::testing::{Noise, random_blocks};
pub use tiny::{Setting, Tiny, TinyExperts};
pub use writer::Writer;
