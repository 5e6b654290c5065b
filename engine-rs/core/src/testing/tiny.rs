//! A small decoder with random weights in any supported block type, as a GGUF file without a tokenizer.

use super::{Noise, Writer, random_blocks};
use crate::gguf::BlockType;

/// The shape of the model. `default` is a llama of two layers in F32.
#[derive(Debug, Clone)]
pub struct Tiny {
    pub architecture: &'static str,
    pub kind: BlockType,
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    pub feed_forward: usize,
    pub vocab: usize,
    pub context: usize,
    pub tied: bool,
    pub biases: bool,
    pub head_norms: bool,
    /// Norms after attention and after the feed-forward.
    pub post_norms: bool,
    /// One matrix for queries, keys and values, and one for gate and up.
    pub fused: bool,
    /// Elements of a head that rotate, where not all do.
    pub rotated: Option<usize>,
    /// Divisors of the rotation, under this name.
    pub divisors: Option<&'static str>,
    pub experts: Option<TinyExperts>,
    /// More keys, written under the architecture's name.
    pub keys: Vec<(&'static str, Setting)>,
}

/// Experts in place of the feed-forward, each as wide as `feed_forward`.
#[derive(Debug, Clone, Copy)]
pub struct TinyExperts {
    pub count: usize,
    pub used: usize,
    /// Width of the one that all rows go through; 0 for none.
    pub shared: usize,
    pub shared_gate: bool,
}

/// The value of a key.
#[derive(Debug, Clone, Copy)]
pub enum Setting {
    Count(u32),
    Number(f32),
    Name(&'static str),
}

impl Default for Tiny {
    fn default() -> Tiny {
        Tiny {
            architecture: "llama",
            kind: BlockType::F32,
            layers: 2,
            width: 64,
            heads: 6,
            kv_heads: 2,
            head_width: 16,
            feed_forward: 96,
            vocab: 101,
            context: 256,
            tied: false,
            biases: false,
            head_norms: false,
            post_norms: false,
            fused: false,
            rotated: None,
            divisors: None,
            experts: None,
            keys: Vec::new(),
        }
    }
}

impl Tiny {
    pub fn writer(&self) -> Writer {
        let mut writer = Writer::new(self.architecture);
        self.write_keys(&mut writer);
        Tensors { tiny: self, noise: Noise::new(self.width as u64), writer: &mut writer }.write();
        writer
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.writer().finish()
    }

    fn write_keys(&self, writer: &mut Writer) {
        let name = |key: &str| format!("{}.{key}", self.architecture);
        let mut sizes = vec![
            ("context_length", self.context),
            ("embedding_length", self.width),
            ("block_count", self.layers),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_width),
            ("attention.value_length", self.head_width),
        ];
        sizes.extend(self.rotated.map(|rotated| ("rope.dimension_count", rotated)));
        if let Some(TinyExperts { count, used, shared, .. }) = self.experts {
            sizes.extend([("expert_count", count), ("expert_used_count", used)]);
            sizes.push(("expert_feed_forward_length", self.feed_forward));
            sizes.extend((shared > 0).then_some(("expert_shared_feed_forward_length", shared)));
        }
        for (key, size) in sizes {
            writer.u32(&name(key), size as u32);
        }
        writer.f32(&name("attention.layer_norm_rms_epsilon"), 1e-5);
        writer.f32(&name("rope.freq_base"), 10_000.0);
        for (key, setting) in &self.keys {
            match setting {
                Setting::Count(count) => writer.u32(&name(key), *count),
                Setting::Number(number) => writer.f32(&name(key), *number),
                Setting::Name(text) => writer.str(&name(key), text),
            };
        }
    }
}

/// Writes the tensors, in an order that decides which random bits each gets.
struct Tensors<'a> {
    tiny: &'a Tiny,
    noise: Noise,
    writer: &'a mut Writer,
}

impl Tensors<'_> {
    fn write(&mut self) {
        let tiny = self.tiny;
        self.matrix("token_embd", &[tiny.vocab, tiny.width]);
        self.vector("output_norm.weight", tiny.width, 1.0);
        if !tiny.tied {
            self.matrix("output", &[tiny.vocab, tiny.width]);
        }
        if let Some(name) = tiny.divisors {
            self.vector(name, tiny.rotated.unwrap_or(tiny.head_width) / 2, 2.0);
        }
        for layer in 0..tiny.layers {
            self.attention(&format!("blk.{layer}"));
            match tiny.experts {
                Some(experts) => self.experts(&format!("blk.{layer}"), experts),
                None => self.feed_forward(&format!("blk.{layer}")),
            }
        }
    }

    fn attention(&mut self, prefix: &str) {
        let tiny = self.tiny;
        let (queries, keys) = (tiny.heads * tiny.head_width, tiny.kv_heads * tiny.head_width);
        if tiny.fused {
            self.matrix(&format!("{prefix}.attn_qkv"), &[queries + 2 * keys, tiny.width]);
        } else {
            for (part, rows) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                self.matrix(&format!("{prefix}.{part}"), &[rows, tiny.width]);
            }
        }
        self.matrix(&format!("{prefix}.attn_output"), &[tiny.width, queries]);
        let post: &[&str] = if tiny.post_norms { &["post_attention_norm", "post_ffw_norm"] } else { &[] };
        for part in ["attn_norm", "ffn_norm"].iter().chain(post) {
            self.vector(&format!("{prefix}.{part}.weight"), tiny.width, 1.0);
        }
        if tiny.biases {
            for (part, length) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                self.vector(&format!("{prefix}.{part}.bias"), length, 0.0);
            }
        }
        if tiny.head_norms {
            for part in ["attn_q_norm", "attn_k_norm"] {
                self.vector(&format!("{prefix}.{part}.weight"), tiny.head_width, 1.0);
            }
        }
    }

    fn feed_forward(&mut self, prefix: &str) {
        let Tiny { width, feed_forward, fused, .. } = *self.tiny;
        if fused {
            self.matrix(&format!("{prefix}.ffn_up"), &[2 * feed_forward, width]);
        } else {
            self.matrix(&format!("{prefix}.ffn_gate"), &[feed_forward, width]);
            self.matrix(&format!("{prefix}.ffn_up"), &[feed_forward, width]);
        }
        self.matrix(&format!("{prefix}.ffn_down"), &[width, feed_forward]);
    }

    fn experts(&mut self, prefix: &str, experts: TinyExperts) {
        let Tiny { width, feed_forward, .. } = *self.tiny;
        let TinyExperts { count, shared, shared_gate, .. } = experts;
        self.tensor(&format!("{prefix}.ffn_gate_inp"), BlockType::F32, &[count, width]);
        self.matrix(&format!("{prefix}.ffn_gate_exps"), &[count, feed_forward, width]);
        self.matrix(&format!("{prefix}.ffn_up_exps"), &[count, feed_forward, width]);
        self.matrix(&format!("{prefix}.ffn_down_exps"), &[count, width, feed_forward]);
        if shared > 0 {
            self.matrix(&format!("{prefix}.ffn_gate_shexp"), &[shared, width]);
            self.matrix(&format!("{prefix}.ffn_up_shexp"), &[shared, width]);
            self.matrix(&format!("{prefix}.ffn_down_shexp"), &[width, shared]);
        }
        if shared_gate {
            self.vector(&format!("{prefix}.ffn_gate_inp_shexp.weight"), width, 0.0);
        }
    }

    fn matrix(&mut self, name: &str, dims: &[usize]) {
        self.tensor(name, self.tiny.kind, dims);
    }

    fn tensor(&mut self, name: &str, kind: BlockType, dims: &[usize]) {
        let columns = dims[dims.len() - 1];
        let scale = 1.7 / (columns as f32).sqrt();
        let bytes = random_blocks(&mut self.noise, kind, dims.iter().product(), scale);
        self.writer.tensor(&format!("{name}.weight"), kind, dims, &bytes);
    }

    fn vector(&mut self, name: &str, length: usize, centre: f32) {
        let values: Vec<u8> = (0..length).flat_map(|_| (centre + self.noise.float() / 8.0).to_le_bytes()).collect();
        self.writer.tensor(name, BlockType::F32, &[length], &values);
    }
}
