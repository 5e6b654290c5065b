//! The architectures that are computed, and what their files do not say: llama.cpp fixes these for each name, and a wrong
//! one fails silently. Adding an architecture that differs only in these is an entry in `ARCHITECTURES`.

use super::spec::{Activation, RopeKind};

pub(super) struct Architecture {
    pub name: &'static str,
    pub rope: RopeKind,
    pub activation: Activation,
    pub window: Window,
    /// Every so many layers one does not rotate; 0 for none.
    pub unrotated_every: usize,
    /// Rows of the embedding are multiplied by the root of their width.
    pub scaled_embedding: bool,
    /// With exactly this many layers, attention is scaled by the root of width / heads and not of the key's width.
    pub layers_scaled_by_width: Option<usize>,
    /// `attn_logit_softcapping` and `final_logit_softcapping` where the file has none; `None` where they are not computed.
    pub softcaps: (Option<f32>, Option<f32>),
    /// Has `embedding_scale`, `residual_scale` and `logit_scale`, which divides.
    pub multipliers: bool,
    pub experts: Experts,
}

/// What `attention.sliding_window` means.
#[derive(Clone, Copy)]
pub(super) enum Window {
    /// It is ignored.
    Ignored,
    /// It holds for all layers.
    All,
    /// Of every `pattern` layers the last sees everything, the others a window of `default` unless the file says more.
    /// `base` turns them: that of the other layers where it is `None`.
    Pattern { pattern: usize, default: usize, base: Option<f32> },
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Experts {
    None,
    /// Where the file counts some; their width is `feed_forward_length`.
    Optional,
    /// Always, of the width `expert_feed_forward_length`.
    Always {
        normalise: bool,
        shared_gate: bool,
    },
}

const LLAMA: Architecture = Architecture {
    name: "llama",
    rope: RopeKind::Interleaved,
    activation: Activation::Silu,
    window: Window::All,
    unrotated_every: 0,
    scaled_embedding: false,
    layers_scaled_by_width: None,
    softcaps: (None, None),
    multipliers: false,
    experts: Experts::Optional,
};

const QWEN2: Architecture =
    Architecture { name: "qwen2", rope: RopeKind::Halves, window: Window::Ignored, experts: Experts::None, ..LLAMA };

const GEMMA: Architecture =
    Architecture { name: "gemma", activation: Activation::Gelu, scaled_embedding: true, ..QWEN2 };

const GRANITE: Architecture = Architecture { name: "granite", window: Window::Ignored, multipliers: true, ..LLAMA };

pub(super) const ARCHITECTURES: [Architecture; 13] = [
    LLAMA,
    Architecture { name: "mistral3", ..LLAMA },
    QWEN2,
    Architecture { name: "qwen2moe", experts: Experts::Always { normalise: false, shared_gate: true }, ..QWEN2 },
    Architecture { name: "qwen3", ..QWEN2 },
    Architecture { name: "qwen3moe", experts: Experts::Always { normalise: true, shared_gate: false }, ..QWEN2 },
    GEMMA,
    Architecture {
        name: "gemma2",
        window: Window::Pattern { pattern: 2, default: 4096, base: None },
        layers_scaled_by_width: Some(46),
        softcaps: (Some(50.0), Some(30.0)),
        ..GEMMA
    },
    Architecture {
        name: "gemma3",
        window: Window::Pattern { pattern: 6, default: 0, base: Some(10_000.0) },
        layers_scaled_by_width: Some(62),
        softcaps: (None, Some(0.0)),
        ..GEMMA
    },
    // Its converters write windows that its models were not trained with, so llama.cpp ignores them too.
    Architecture { name: "phi3", ..QWEN2 },
    Architecture { name: "smollm3", window: Window::Ignored, unrotated_every: 4, experts: Experts::None, ..LLAMA },
    GRANITE,
    Architecture { name: "granitemoe", ..GRANITE },
];
