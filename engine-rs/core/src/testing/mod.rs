//! What tests are built from, in this crate and in those above it: repeatable noise and small GGUF files. Shipped so that
//! nobody needs a second copy; nothing in the engine uses it.

mod noise;
mod tiny;
mod writer;

pub use noise::Noise;
pub use tiny::{Tiny, random_blocks};
pub use writer::Writer;
