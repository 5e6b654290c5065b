//! Operations on one row of activations or one head of it, element by element or over the whole row. What a row gets
//! depends on that row alone.

mod encoding;
mod gates;
mod norm;
mod rotary;

pub use encoding::{gelu, layer_norm, softmax};
pub(crate) use gates::tanh;
pub use gates::{gelu_gate, scale_add, softcap};
pub use norm::rms_norm;
pub use rotary::{rotate_halves, rotate_interleaved};
