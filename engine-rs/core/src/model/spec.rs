//! What a decoder is: the numbers and choices that tell one model of the llama family from another. Only the description
//! lives here; `read` fills it from a GGUF file, and an executor computes it.

/// Which elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// Neighbours: 0 with 1, 2 with 3 (llama.cpp's NORM).
    Interleaved,
    /// Halves of the rotated part: 0 with n/2, 1 with n/2 + 1 (llama.cpp's NEOX).
    Halves,
}

/// What the gate of a feed-forward goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// The tanh form.
    Gelu,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    pub architecture: &'static str,
    pub layers: usize,
    pub width: usize,
    /// Of the layers without experts.
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub key_width: usize,
    pub value_width: usize,
    pub norm_epsilon: f32,
    pub context_length: usize,
    /// One, or two where layers with a window rotate differently (gemma3): then the first belongs to the other layers.
    pub ropes: Vec<RopeSpec>,
    /// One for each layer.
    pub layer: Vec<LayerSpec>,
    pub activation: Activation,
    /// Rows of the embedding are multiplied by it.
    pub embedding_scale: f32,
    /// Products of queries and keys are multiplied by it.
    pub attention_scale: f32,
    /// What attention and feed-forward add to the residual stream is multiplied by it.
    pub residual_scale: f32,
    /// Logits are multiplied by it.
    pub logit_scale: f32,
    /// `cap * tanh(x / cap)` over scaled products of queries and keys; 0 for none.
    pub attention_softcap: f32,
    /// The same over logits; 0 for none.
    pub logit_softcap: f32,
    pub temperature: Option<Temperature>,
    pub experts: Option<ExpertSpec>,
}

/// Queries grow as their position passes multiples of `every`: by `1 + scale * ln(1 + floor(position / every))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    pub scale: f32,
    pub every: usize,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSpec {
    /// Index into `ropes`; `None` for a layer that does not rotate.
    pub rope: Option<usize>,
    /// A query at p sees p - window + 1 ..= p; 0 for everything up to p.
    pub window: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    pub kind: RopeKind,
    /// Leading elements of a head that rotate; the others stay as they are.
    pub rotated: usize,
    pub base: f32,
    pub scaling: RopeScaling,
    /// Cosines and sines are multiplied by it.
    pub magnitude: f32,
}

/// How positions beyond those of the first training are brought back into range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    None,
    /// Positions are divided by the factor.
    Linear {
        factor: f32,
    },
    /// Pairs that turn slowly are divided by the factor, fast ones left alone (<https://arxiv.org/abs/2309.00071>).
    Yarn {
        factor: f32,
        original_context: usize,
        /// Turns within the original context from which on a pair is left alone, and below which it is divided.
        beta_fast: f32,
        beta_slow: f32,
        /// How much of a fast pair is left alone: 1 unless the file says otherwise.
        extrapolation: f32,
    },
    /// Each pair has a divisor of its own for contexts up to the original length and one for longer ones, in tensors.
    Long {
        factor: f32,
        original_context: usize,
    },
}

/// A mixture of experts in place of the feed-forward: softmax over all experts, then the best few.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertSpec {
    pub count: usize,
    pub used: usize,
    pub feed_forward: usize,
    /// Divide the weights of the used experts by their sum, which counts as at least 2^-14.
    pub normalise: bool,
    /// The weights are then multiplied by it.
    pub scale: f32,
    pub shared: Option<SharedExpert>,
}

/// An expert that every row goes through, added to the chosen ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedExpert {
    pub feed_forward: usize,
    /// Its result is multiplied by the sigmoid of the row's product with `ffn_gate_inp_shexp`.
    pub gated: bool,
}

impl DecoderSpec {
    /// Query heads that share a key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Whether this is a decoder of attention, rotation of whole heads and a gated feed-forward alone.
    pub fn is_plain(&self) -> bool {
        self.beyond_plain().is_none()
    }

    /// The first feature that a plain decoder does not have.
    pub fn beyond_plain(&self) -> Option<&'static str> {
        let features = [
            (self.experts.is_some(), "a mixture of experts"),
            (self.architecture == "phi3", "fused projections"),
            (self.activation != Activation::Silu, "a GELU feed-forward"),
            (self.attention_softcap != 0.0 || self.logit_softcap != 0.0, "soft capping"),
            (self.layer.iter().any(|layer| layer.window != 0), "a sliding window"),
            (self.layer.iter().any(|layer| layer.rope != Some(0)), "layers that rotate differently"),
            (self.ropes.iter().any(|rope| rope.rotated != self.key_width), "heads that rotate in part"),
            (self.temperature.is_some(), "a temperature of attention"),
            (self.attention_scale != plain_attention_scale(self.key_width), "a scale of attention"),
            ([self.embedding_scale, self.residual_scale, self.logit_scale] != [1.0; 3], "multipliers"),
        ];
        features.into_iter().find(|(present, _)| *present).map(|(_, name)| name)
    }
}

pub(super) fn plain_attention_scale(key_width: usize) -> f32 {
    1.0 / (key_width as f32).sqrt()
}

impl Temperature {
    /// What a query at this position is multiplied by.
    pub fn at(&self, position: usize) -> f32 {
        1.0 + self.scale * ((1 + position / self.every) as f32).ln()
    }
}

impl RopeSpec {
    /// The tensor of divisors, one for each pair, that a file may hold for a context of this length.
    pub fn divisors(&self, context_length: usize) -> &'static str {
        match self.scaling {
            RopeScaling::Long { original_context, .. } if context_length > original_context => {
                "rope_factors_long.weight"
            }
            RopeScaling::Long { .. } => "rope_factors_short.weight",
            _ => "rope_freqs.weight",
        }
    }
}
