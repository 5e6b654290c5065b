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
        }
    }
}

impl Tiny {
    /// Every supported architecture, and shapes whose rows fit every block type.
    pub fn variety() -> Vec<Tiny> {
        let wide = Tiny { width: 256, heads: 4, head_width: 64, feed_forward: 512, ..Tiny::default() };
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

    pub fn writer(&self) -> Writer {
        let mut writer = Writer::new(self.architecture);
        self.keys(&mut writer);
        self.tensors(&mut writer);
        writer
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.writer().finish()
    }

    fn keys(&self, writer: &mut Writer) {
        let sizes = [
            ("context_length", self.context),
            ("embedding_length", self.width),
            ("block_count", self.layers),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_width),
            ("attention.value_length", self.head_width),
        ];
        for (key, size) in sizes {
            writer.u32(&format!("{}.{key}", self.architecture), size as u32);
        }
        writer.f32(&format!("{}.attention.layer_norm_rms_epsilon", self.architecture), 1e-5);
        writer.f32(&format!("{}.rope.freq_base", self.architecture), 10_000.0);
    }

    fn tensors(&self, writer: &mut Writer) {
        let mut noise = Noise::new(self.width as u64);
        let (queries, keys) = (self.heads * self.head_width, self.kv_heads * self.head_width);
        self.matrix(writer, &mut noise, "token_embd", self.vocab, self.width);
        self.vector(writer, &mut noise, "output_norm.weight", self.width, 1.0);
        if !self.tied {
            self.matrix(writer, &mut noise, "output", self.vocab, self.width);
        }
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            for (part, rows, columns) in [
                ("attn_q", queries, self.width),
                ("attn_k", keys, self.width),
                ("attn_v", keys, self.width),
                ("attn_output", self.width, queries),
                ("ffn_gate", self.feed_forward, self.width),
                ("ffn_up", self.feed_forward, self.width),
                ("ffn_down", self.width, self.feed_forward),
            ] {
                self.matrix(writer, &mut noise, &name(part), rows, columns);
            }
            for part in ["attn_norm.weight", "ffn_norm.weight"] {
                self.vector(writer, &mut noise, &name(part), self.width, 1.0);
            }
            if self.biases {
                for (part, length) in [("attn_q.bias", queries), ("attn_k.bias", keys), ("attn_v.bias", keys)] {
                    self.vector(writer, &mut noise, &name(part), length, 0.0);
                }
            }
            if self.head_norms {
                for part in ["attn_q_norm.weight", "attn_k_norm.weight"] {
                    self.vector(writer, &mut noise, &name(part), self.head_width, 1.0);
                }
            }
        }
    }

    fn matrix(&self, writer: &mut Writer, noise: &mut Noise, name: &str, rows: usize, columns: usize) {
        let scale = 1.7 / (columns as f32).sqrt();
        let bytes = random_blocks(noise, self.kind, rows * columns, scale);
        writer.tensor(&format!("{name}.weight"), self.kind, &[rows, columns], &bytes);
    }

    fn vector(&self, writer: &mut Writer, noise: &mut Noise, name: &str, length: usize, centre: f32) {
        let values: Vec<u8> = (0..length).flat_map(|_| (centre + noise.float() / 8.0).to_le_bytes()).collect();
        writer.tensor(name, BlockType::F32, &[length], &values);
    }
}
