//! Models that would be computed wrongly are refused, and the message names what is wrong.
#![allow(clippy::unwrap_used, reason = "a test helper may panic as a test may")]

use std::sync::Arc;

use quiver_core::error::Result;
use quiver_core::gguf::{BlockType, Gguf};
use quiver_core::model::Decoder;
use quiver_core::testing::{Noise, Tiny, Writer, random_blocks};

fn open(bytes: &[u8]) -> Result<Decoder> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Decoder::open(&Arc::new(Gguf::open(&path)?))
}

/// The default model's file with one more key or tensor.
fn with(change: impl FnOnce(&mut Writer) -> &mut Writer) -> Vec<u8> {
    let mut writer = Tiny::default().writer();
    change(&mut writer);
    writer.finish()
}

#[test]
fn every_variety_opens() {
    for tiny in Tiny::variety() {
        let decoder = open(&tiny.bytes()).unwrap();
        assert_eq!((decoder.spec.architecture, decoder.vocab), (tiny.architecture, tiny.vocab));
    }
}

#[test]
fn refusals_name_the_cause() {
    let default = Tiny::default;
    let f32 = BlockType::F32;
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (
            Writer::new("gpt2").finish(),
            "unsupported_architecture",
            "`gpt2` is not supported (supported: llama, mistral3, qwen2,",
        ),
        (Writer::default().finish(), "gguf_missing_key", "general.architecture"),
        (Writer::new("llama").finish(), "gguf_missing_key", "llama.embedding_length"),
        (with(|w| w.u32("llama.expert_count", 8)), "gguf_missing_key", "`llama.expert_used_count`"),
        (with(|w| w.str("llama.rope.scaling.type", "ntk")), "unsupported_model", "rope scaling `ntk`"),
        (with(|w| w.f32("llama.rope.scaling.factor", -1.0)), "gguf_malformed", "with factor -1"),
        (with(|w| w.u32("llama.rope.dimension_count", 18)), "gguf_malformed", "18 of the 16 elements of a head rotate"),
        (with(|w| w.u32("llama.rope.dimension_count", 8)), "unsupported_model", "heads that rotate in part (`llama`)"),
        (Tiny { kv_heads: 4, ..default() }.bytes(), "gguf_malformed", "6 heads cannot share 4"),
        (
            Writer::new("llama").u32("llama.embedding_length", 4).u32("llama.attention.head_count", 0).finish(),
            "gguf_malformed",
            "`llama.attention.head_count` is 0",
        ),
        (Tiny { layers: 0, ..default() }.bytes(), "gguf_malformed", "`llama.block_count` is 0"),
        (Tiny { head_width: 15, ..default() }.bytes(), "gguf_malformed", "an even number"),
        (with(|w| w.tensor("rope_freqs.weight", f32, &[7], &[0; 28])), "bad_tensor", "should be [8], is F32 [7]"),
        (
            with(|w| w.tensor("blk.0.attn_gate.weight", f32, &[1], &[0; 4])),
            "unsupported_model",
            "`blk.0.attn_gate.weight` has no place",
        ),
        (with(|w| w.tensor("blk.1.ffn_up.bias", f32, &[95], &[0; 380])), "bad_tensor", "should be [96], is F32 [95]"),
        (with(|w| w.tensor("blk.2.ffn_up.bias", f32, &[96], &[0; 384])), "unsupported_model", "`blk.2.ffn_up.bias`"),
    ];
    for (bytes, code, expected) in cases {
        let error = open(&bytes).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(expected), "wanted {expected}, got {error}");
    }
}

#[test]
fn types_that_are_not_decoded_are_named() {
    let bytes = with(|writer| writer.tensor("blk.0.attn_q.bias", named("IQ4_NL"), &[96], &[0; 54]));
    let message = open(&bytes).unwrap_err().to_string();
    assert_eq!(message, "tensor `blk.0.attn_q.bias` has the unsupported type IQ4_NL");
}

fn named(name: &str) -> BlockType {
    BlockType::ALL.into_iter().find(|kind| kind.name == name).unwrap()
}

#[test]
fn missing_tensors_are_named() {
    let mut writer = Writer::new("llama");
    for (key, size) in
        [("context_length", 8), ("embedding_length", 32), ("block_count", 4096), ("feed_forward_length", 32)]
    {
        writer.u32(&format!("llama.{key}"), size);
    }
    writer.u32("llama.attention.head_count", 2).f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    assert!(open(&writer.finish()).unwrap_err().to_string().contains("tensor `token_embd.weight` is missing"));
    let embedding = random_blocks(&mut Noise::new(1), BlockType::Q8_0, 64, 1.0);
    writer.tensor("token_embd.weight", BlockType::Q8_0, &[2, 32], &embedding);
    assert!(open(&writer.finish()).unwrap_err().to_string().contains("tensor `blk.0.attn_norm.weight` is missing"));
}
