//! Small encoders with random weights and a WordPiece vocabulary, as GGUF files.

use super::{Noise, Writer};
use crate::gguf::BlockType;

const WIDTH: usize = 32;
const FEED_FORWARD: usize = 48;
const CONTEXT: usize = 64;
const LAYERS: usize = 2;

/// One with embedded positions, one with rotated ones and gates.
pub fn encoders() -> Vec<Writer> {
    vec![encoder("bert", false), encoder("nomic-bert", true)]
}

fn encoder(architecture: &str, rotates: bool) -> Writer {
    let mut writer = Writer::new(architecture);
    let sizes = [
        ("context_length", CONTEXT),
        ("embedding_length", WIDTH),
        ("block_count", LAYERS),
        ("feed_forward_length", FEED_FORWARD),
        ("attention.head_count", 4),
        ("pooling_type", 1),
    ];
    for (key, size) in sizes {
        writer.u32(&format!("{architecture}.{key}"), size as u32);
    }
    writer.f32(&format!("{architecture}.attention.layer_norm_epsilon"), 1e-12);
    if rotates {
        writer.f32(&format!("{architecture}.rope.freq_base"), 1000.0);
    }
    let vocab = vocabulary(&mut writer);
    let mut noise = Noise::new(WIDTH as u64);
    let mut tensor = |name: &str, dims: &[usize]| {
        let count = dims.iter().product();
        let values: Vec<u8> = noise.floats(count).into_iter().flat_map(|value| (value / 4.0).to_le_bytes()).collect();
        writer.tensor(name, BlockType::F32, dims, &values);
    };
    tensor("token_embd.weight", &[vocab, WIDTH]);
    tensor("token_types.weight", &[2, WIDTH]);
    if !rotates {
        tensor("position_embd.weight", &[CONTEXT, WIDTH]);
    }
    let mut norms = vec!["token_embd_norm".to_owned()];
    for layer in 0..LAYERS {
        let inputs = if rotates { vec![("attn_qkv", 3 * WIDTH, WIDTH)] } else { split() };
        let gate = if rotates { vec![("ffn_gate", FEED_FORWARD, WIDTH)] } else { Vec::new() };
        let others =
            [("attn_output", WIDTH, WIDTH), ("ffn_up", FEED_FORWARD, WIDTH), ("ffn_down", WIDTH, FEED_FORWARD)];
        for (part, rows, columns) in inputs.into_iter().chain(gate).chain(others) {
            tensor(&format!("blk.{layer}.{part}.weight"), &[rows, columns]);
            if !rotates {
                tensor(&format!("blk.{layer}.{part}.bias"), &[rows]);
            }
        }
        norms.extend(["attn_output_norm", "layer_output_norm"].map(|norm| format!("blk.{layer}.{norm}")));
    }
    for norm in norms {
        tensor(&format!("{norm}.weight"), &[WIDTH]);
        tensor(&format!("{norm}.bias"), &[WIDTH]);
    }
    writer
}

fn split() -> Vec<(&'static str, usize, usize)> {
    ["attn_q", "attn_k", "attn_v"].map(|part| (part, WIDTH, WIDTH)).to_vec()
}

fn vocabulary(writer: &mut Writer) -> usize {
    let mut tokens: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(String::from).to_vec();
    tokens.extend(('a'..='z').flat_map(|letter| [format!("\u{2581}{letter}"), letter.to_string()]));
    tokens.extend(["\u{2581}the", "in"].map(String::from));
    let kinds: Vec<i32> = (0..tokens.len()).map(|at| if at < 5 { 3 } else { 1 }).collect();
    writer.str("tokenizer.ggml.model", "bert").strings("tokenizer.ggml.tokens", &tokens);
    writer.i32s("tokenizer.ggml.token_type", &kinds);
    let roles = [("unknown", 1), ("bos", 2), ("cls", 2), ("seperator", 3), ("eos", 3), ("padding", 0), ("mask", 4)];
    for (role, id) in roles {
        writer.u32(&format!("tokenizer.ggml.{role}_token_id"), id);
    }
    tokens.len()
}
