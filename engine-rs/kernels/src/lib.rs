//! The inner loops of inference: slices in, slices out, no tensors, no threads. Each runs on the instruction set it is
//! given, and computes a row the same way whatever other rows it is given with ("row-stable").

mod aligned;
pub mod attention;
mod block;
mod dequantize;
mod dot;
mod elementwise;
mod exp;
pub(crate) mod isa;
mod kv;
mod logits;
mod math;
mod matrix;
mod output;
pub mod rows;
pub mod testing;

pub use block::BlockType;
pub use dequantize::{SUPPORTED, decode};
pub use dot::{TILE, products};
pub use elementwise::{add, gate};
pub use isa::Isa;
pub use kv::{BLOCK, KvLayout, KvPlace, KvType};
pub use logits::{largest, weigh};
pub use matrix::{Format, Formats, Inputs, Matrix, MatrixScratch, NoMemory};
pub use output::Output;
pub use rows::{gelu, layer_norm, softmax};
