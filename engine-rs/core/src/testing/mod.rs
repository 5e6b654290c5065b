//! What tests are built from, in this crate and in those above it: repeatable noise and small GGUF files. Shipped so that
//! nobody needs a second copy; nothing in the engine uses it.

mod corpus;
mod damage;
mod encoders;
mod exercise;
mod meter;
mod tiny;
mod variety;
mod writer;

pub use corpus::corpus;
pub use damage::damaged;
pub use encoders::encoders;
pub use exercise::exercise;
pub use meter::Meter;
pub use quiver_kernels::testing::{Noise, random_blocks};
pub use tiny::{Setting, Tiny, TinyExperts};
pub use writer::Writer;
