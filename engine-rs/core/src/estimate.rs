//! How much memory a model will take, from the header of its file alone: weights, keys and values, working space. Meant
//! for a decision ahead of loading, so it counts what has to be there and not what a lucky run gets away with.

use crate::error::{Error, Result};
use crate::executor::ExecutorOptions;
use crate::gguf::{Gguf, Value};
use crate::kv::{BLOCK, KvLayout, KvType, blocks_for};
use crate::model::DecoderSpec;

/// Without a context of its own a model is promised no more than room for so many tokens, over all its sequences: what
/// models are trained for (128 k and more) is rarely used, and sequences take memory only as they grow.
const TOKENS_UNPROMISED: usize = 8192;
/// What the cache has room for, for each sequence: see `RunOptions::limits`.
const USUAL_TOKENS: usize = 4096;
/// Strings of the vocabulary are kept beside their lookup tables.
const VOCABULARY_COPIES: u64 = 4;

/// Bytes, by what they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Estimate {
    /// All tensors, packed or mapped: about the file's own size.
    pub weights: u64,
    /// Keys and values of `kv_tokens` tokens.
    pub kv: u64,
    pub kv_tokens: u64,
    /// Activations and logits of a step, and the vocabulary.
    pub scratch: u64,
    /// What the model was trained for; 0 for models without a cache.
    pub trained_context: u64,
}

impl Estimate {
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv).saturating_add(self.scratch)
    }
}

/// `step_tokens`: rows of the largest step.
///
/// # Errors
/// What the file's metadata is refused for, except an architecture that only its own loader knows: then keys and values
/// are not counted.
pub fn estimate(gguf: &Gguf, options: &ExecutorOptions, max_sequences: usize, step_tokens: usize) -> Result<Estimate> {
    let weights = gguf.tensors().fold(0_u64, |sum, tensor| sum.saturating_add(tensor.data.len() as u64));
    let vocabulary = vocabulary_bytes(gguf).saturating_mul(VOCABULARY_COPIES);
    let spec = match DecoderSpec::read(gguf) {
        Err(Error::UnsupportedArchitecture { .. }) => {
            return Ok(Estimate { weights, scratch: vocabulary, ..Estimate::default() });
        }
        other => other?,
    };
    let sequences = max_sequences as u64;
    let kv_tokens = match options.context_length {
        Some(context) => tokens(context.min(USUAL_TOKENS)).saturating_mul(sequences).max(tokens(context)),
        None => tokens(spec.context_length.min(TOKENS_UNPROMISED)),
    };
    let logits = (vocabulary_size(gguf) as u64).saturating_mul(sequences).saturating_mul(4);
    let rows = row_bytes(&spec).saturating_mul(step_tokens.max(max_sequences) as u64);
    Ok(Estimate {
        weights,
        kv: (kv_tokens / BLOCK as u64).saturating_mul(block_bytes(&spec, options.kv)),
        kv_tokens,
        scratch: vocabulary.saturating_add(logits).saturating_add(rows),
        trained_context: spec.context_length as u64,
    })
}

/// Keys and values of a block of tokens, in every layer.
fn block_bytes(spec: &DecoderSpec, kv: KvType) -> u64 {
    let layout = KvLayout::new(kv, spec.layers, spec.kv_heads, spec.key_width, spec.value_width);
    layout.map_or(u64::MAX, |layout| layout.block_bytes() as u64)
}

/// One row of a step in one layer: the residual, its normed and quantized copies, queries, keys and values, gate and up.
fn row_bytes(spec: &DecoderSpec) -> u64 {
    let heads = (spec.heads as u64).saturating_mul(2).saturating_add(spec.kv_heads as u64);
    let attention = heads.saturating_mul(spec.key_width.max(spec.value_width) as u64);
    let feed_forward = (spec.feed_forward as u64).saturating_mul(3);
    let width = (spec.width as u64).saturating_mul(4);
    width.saturating_add(attention).saturating_add(feed_forward).saturating_mul(4)
}

/// Whole blocks of `count` tokens, as tokens.
fn tokens(count: usize) -> u64 {
    (blocks_for(count) as u64).saturating_mul(BLOCK as u64)
}

fn vocabulary_bytes(gguf: &Gguf) -> u64 {
    let arrays = gguf.values().filter(|(key, _)| key.starts_with("tokenizer."));
    let bytes = arrays.map(|(_, value)| match value {
        Value::Array(array) => array.bytes.len() as u64,
        _ => 0,
    });
    bytes.sum()
}

fn vocabulary_size(gguf: &Gguf) -> usize {
    gguf.opt_tensor("token_embd.weight").and_then(|tensor| tensor.info.dims.first().copied()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tiny, Writer};

    fn open(bytes: &[u8]) -> Gguf {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, bytes).unwrap();
        Gguf::open(&path).unwrap()
    }

    fn options(context_length: Option<usize>, kv: KvType) -> ExecutorOptions {
        ExecutorOptions { context_length, kv, ..ExecutorOptions::default() }
    }

    #[test]
    fn every_part_is_counted() {
        let tiny = Tiny::default();
        let gguf = open(&tiny.bytes());
        let token = (tiny.layers * tiny.kv_heads * 2 * tiny.head_width) as u64;
        let table = [
            (Some(33), KvType::F16, 4, 64 * 4, 2),
            (Some(33), KvType::F32, 4, 64 * 4, 4),
            (Some(32), KvType::F32, 1, 32, 4),
            (None, KvType::F16, 16, tiny.context as u64, 2),
        ];
        for (context, kv, sequences, tokens, number) in table {
            let found = estimate(&gguf, &options(context, kv), sequences, 512).unwrap();
            assert_eq!((found.kv_tokens, found.kv), (tokens, tokens * token * number));
            assert!(found.weights > 0 && found.weights <= gguf.size_bytes() as u64);
            assert_eq!(found.total(), found.weights + found.kv + found.scratch);
            assert_eq!(found.trained_context, tiny.context as u64);
        }
    }

    #[test]
    fn long_contexts_promise_little_unless_asked() {
        let gguf = open(&Tiny { context: 131_072, ..Tiny::default() }.bytes());
        let tokens = |context| estimate(&gguf, &options(context, KvType::F16), 16, 512).unwrap().kv_tokens;
        assert_eq!((tokens(None), tokens(Some(131_072))), (8192, 131_072));
    }

    #[test]
    fn larger_steps_need_more_room() {
        let gguf = open(&Tiny::default().bytes());
        let scratch = |step| estimate(&gguf, &options(None, KvType::F16), 4, step).unwrap().scratch;
        assert!(scratch(512) > scratch(64));
    }

    #[test]
    fn other_architectures_count_their_weights() {
        let bytes = Writer::new("zebra").tensor("a", crate::gguf::BlockType::F32, &[64], &[0; 256]).finish();
        let found = estimate(&open(&bytes), &options(Some(64), KvType::F16), 4, 512).unwrap();
        assert_eq!((found.weights, found.kv, found.total()), (256, 0, 256));
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let bytes = Tiny { context: u32::MAX as usize, ..Tiny::default() }.bytes();
        let found = estimate(&open(&bytes), &options(Some(usize::MAX), KvType::F32), usize::MAX, 512).unwrap();
        assert!(found.total() > 1 << 62);
    }
}
