//! What tests are built from, in this crate and in those above it. Nothing in a kernel uses it.

mod blocks;
mod noise;

pub use blocks::random_blocks;
pub use noise::Noise;
