//! The small decoders that tests run through: what every executor computes, and one for each feature beyond that.

use super::tiny::{Setting, Tiny, TinyExperts};
use crate::gguf::BlockType;

use Setting::{Count, Name, Number};

impl Tiny {
    /// Plain decoders, and shapes whose rows fit every block type.
    pub fn variety() -> Vec<Tiny> {
        let wide = Tiny::wide();
        vec![
            Tiny::default(),
            Tiny { architecture: "qwen2", tied: true, biases: true, ..Tiny::default() },
            Tiny { architecture: "qwen3", head_norms: true, ..Tiny::default() },
            Tiny { kind: BlockType::Q8_0, ..Tiny::default() },
            Tiny { kind: BlockType::Q4_0, architecture: "qwen2", biases: true, ..Tiny::default() },
            Tiny { kind: BlockType::Q4_K, tied: true, ..wide.clone() },
            Tiny { kind: BlockType::Q6_K, architecture: "qwen3", head_norms: true, ..wide },
        ]
    }

    /// One for each feature that a plain decoder does not have. Windows are short enough to matter in a few blocks.
    pub fn features() -> Vec<Tiny> {
        let gemma = Tiny { tied: true, kv_heads: 1, ..Tiny::default() };
        let multipliers = [("embedding_scale", 6.0), ("residual_scale", 0.5), ("logit_scale", 4.0)];
        let multipliers = multipliers.map(|(key, value)| (key, Number(value))).to_vec();
        [
            Tiny::mixtures(),
            vec![
                Tiny {
                    architecture: "gemma2",
                    layers: 4,
                    post_norms: true,
                    keys: vec![
                        ("attention.sliding_window", Count(21)),
                        ("attn_logit_softcapping", Number(2.0)),
                        ("final_logit_softcapping", Number(3.0)),
                    ],
                    ..gemma.clone()
                },
                Tiny {
                    architecture: "gemma3",
                    layers: 3,
                    post_norms: true,
                    head_norms: true,
                    keys: vec![
                        ("attention.sliding_window", Count(37)),
                        ("attention.sliding_window_pattern", Count(3)),
                        ("rope.scaling.factor", Number(8.0)),
                    ],
                    ..gemma.clone()
                },
                Tiny { architecture: "gemma", kind: BlockType::BF16, ..gemma },
                Tiny {
                    architecture: "phi3",
                    kind: BlockType::Q8_0,
                    heads: 4,
                    fused: true,
                    rotated: Some(12),
                    divisors: Some("rope_factors_long.weight"),
                    keys: vec![("rope.scaling.original_context_length", Count(64))],
                    ..Tiny::default()
                },
                Tiny { architecture: "smollm3", layers: 4, kind: BlockType::F16, ..Tiny::default() },
                Tiny { architecture: "granite", keys: multipliers, ..Tiny::default() },
                Tiny { keys: vec![("attention.sliding_window", Count(33))], ..Tiny::default() },
                Tiny {
                    architecture: "mistral3",
                    kind: BlockType::Q5_K,
                    keys: vec![
                        ("rope.scaling.type", Name("yarn")),
                        ("rope.scaling.factor", Number(4.0)),
                        ("rope.scaling.original_context_length", Count(64)),
                        ("attention.temperature_scale", Number(0.5)),
                    ],
                    ..Tiny::wide()
                },
            ],
        ]
        .concat()
    }

    fn mixtures() -> Vec<Tiny> {
        let experts = TinyExperts { count: 4, used: 2, shared: 0, shared_gate: false };
        let eight = TinyExperts { count: 8, used: 3, ..experts };
        let gated = TinyExperts { shared: 32, shared_gate: true, ..experts };
        vec![
            Tiny { experts: Some(experts), ..Tiny::default() },
            Tiny { experts: Some(eight), architecture: "qwen3moe", head_norms: true, ..Tiny::default() },
            Tiny { experts: Some(gated), architecture: "qwen2moe", biases: true, ..Tiny::default() },
            Tiny { experts: Some(experts), kind: BlockType::Q4_K, feed_forward: 256, ..Tiny::wide() },
        ]
    }

    fn wide() -> Tiny {
        Tiny { width: 256, heads: 4, head_width: 64, feed_forward: 512, ..Tiny::default() }
    }
}
