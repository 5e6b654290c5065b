//! The decoders of the llama family: what each is (`spec`, filled from a file by `read`), and for the plain ones their
//! weights and how a batch of rows goes through them. The latter is written on candle tensors; what touches weights is in
//! `linear`, and every operation used computes a row alone, so that a row's logits do not depend on its batch.

mod architectures;
mod attention;
mod batch;
mod elementwise;
mod keys;
mod loader;
mod read;
mod read_rope;
mod rope;
mod rotary;
mod spec;

use std::sync::Arc;

use candle_core::{CpuStorage, Device, Storage, Tensor};
use candle_nn::ops::rms_norm;

pub use batch::{Batch, Span};
pub(crate) use loader::Loader;
pub use rope::Rope;
pub use spec::{
    Activation, DecoderSpec, ExpertSpec, LayerSpec, RopeKind, RopeScaling, RopeSpec, SharedExpert, Temperature,
};

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kernels::attention::Head;
use crate::kv::KvCache;
use crate::linear::{Linear, Weight};
use crate::load_watch::LoadWatch;
use elementwise::{gated, sum};
use rotary::Angles;

/// A model ready to run. Weights stay in the file's mapping.
#[derive(Debug)]
pub struct Decoder {
    pub spec: DecoderSpec,
    pub vocab: usize,
    embedding: Weight,
    layers: Vec<Layer>,
    output_norm: Tensor,
    output: Linear,
    rope: Rope,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Tensor>,
    key_norm: Option<Tensor>,
    attention_output: Linear,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn open(loader: &mut Loader<'_>, spec: &DecoderSpec, number: usize) -> Result<Layer> {
        let DecoderSpec { width, feed_forward, heads, kv_heads, key_width, value_width, .. } = *spec;
        let name = |part: &str| format!("blk.{number}.{part}");
        Ok(Layer {
            attention_norm: loader.norm(&name("attn_norm"), width)?,
            query: loader.linear(&name("attn_q"), heads * key_width, width)?,
            key: loader.linear(&name("attn_k"), kv_heads * key_width, width)?,
            value: loader.linear(&name("attn_v"), kv_heads * value_width, width)?,
            query_norm: loader.opt_norm(&name("attn_q_norm"), key_width)?,
            key_norm: loader.opt_norm(&name("attn_k_norm"), key_width)?,
            attention_output: loader.linear(&name("attn_output"), width, heads * value_width)?,
            feed_forward_norm: loader.norm(&name("ffn_norm"), width)?,
            gate: loader.linear(&name("ffn_gate"), feed_forward, width)?,
            up: loader.linear(&name("ffn_up"), feed_forward, width)?,
            down: loader.linear(&name("ffn_down"), width, feed_forward)?,
        })
    }
}

impl Decoder {
    /// # Errors
    /// Those of `DecoderSpec::read`; `MissingTensor`, `BadTensor` or `UnsupportedTensorType` with the tensor's name; and
    /// `UnsupportedModel` for a tensor that the architecture has no place for.
    pub fn open(file: &Arc<Gguf>) -> Result<Decoder> {
        Decoder::open_watched(file, &LoadWatch::default())
    }

    /// As `open`; `watch` hears of every tensor and may cancel (`LoadCancelled`).
    pub fn open_watched(file: &Arc<Gguf>, watch: &LoadWatch) -> Result<Decoder> {
        let spec = DecoderSpec::read(file)?;
        if let Some(feature) = spec.beyond_plain() {
            let what = format!("{feature} (`{}`) needs the fused executor", spec.architecture);
            return Err(Error::UnsupportedModel { what });
        }
        let mut loader = Loader::new(file, watch);
        let vocab = match file.tensor("token_embd.weight")?.info.dims[..] {
            [vocab, _] => vocab,
            _ => return Err(file.malformed("`token_embd.weight` is not a matrix")),
        };
        let embedding = loader.weight("token_embd.weight", vocab, spec.width)?;
        let output = match loader.has("output.weight") {
            true => loader.linear("output", vocab, spec.width)?,
            false => Linear::new(embedding.clone(), None),
        };
        let divisors = loader.divisors(&spec.ropes[0], spec.context_length)?;
        let layers = (0..spec.layers).map(|number| Layer::open(&mut loader, &spec, number));
        let decoder = Decoder {
            layers: layers.collect::<Result<_>>()?,
            output_norm: loader.norm("output_norm", spec.width)?,
            rope: Rope::new(&spec.ropes[0], divisors.as_deref()),
            embedding,
            output,
            vocab,
            spec,
        };
        loader.finish()?;
        Ok(decoder)
    }

    /// The logits of the wanted rows, `[wanted, vocab]` flat. The blocks of every span must have been
    /// reserved.
    pub fn forward(&self, batch: &Batch, kv: &mut KvCache) -> Result<Vec<f32>> {
        let angles = Angles::new(&self.rope, &batch.positions)?;
        let mut hidden = self.embed(&batch.tokens)?;
        for (number, layer) in self.layers.iter().enumerate() {
            let normed = self.norm(&hidden, &layer.attention_norm)?;
            let attended = self.attend(layer, number, &normed, batch, &angles, kv)?;
            hidden = sum(&hidden, &attended)?;
            let normed = self.norm(&hidden, &layer.feed_forward_norm)?;
            let gated = gated(&layer.gate.forward(&normed)?, &layer.up.forward(&normed)?)?;
            hidden = sum(&hidden, &layer.down.forward(&gated)?)?;
        }
        if batch.wanted.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = Tensor::new(batch.wanted.as_slice(), &Device::Cpu)?;
        let normed = self.norm(&hidden.index_select(&wanted, 0)?, &self.output_norm)?;
        Ok(self.output.forward(&normed)?.flatten_all()?.to_vec1()?)
    }

    fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let width = self.spec.width;
        let mut rows = vec![0.0; tokens.len() * width];
        for (row, token) in rows.chunks_exact_mut(width).zip(tokens) {
            self.embedding.decode_rows(*token as usize, row);
        }
        Ok(Tensor::from_vec(rows, (tokens.len(), width), &Device::Cpu)?)
    }

    fn norm(&self, rows: &Tensor, weight: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(rows, weight, self.spec.norm_epsilon)?)
    }

    fn attend(
        &self,
        layer: &Layer,
        number: usize,
        normed: &Tensor,
        batch: &Batch,
        angles: &Angles,
        kv: &mut KvCache,
    ) -> Result<Tensor> {
        let DecoderSpec { heads, kv_heads, key_width, value_width, .. } = self.spec;
        let rows = batch.tokens.len();
        let queries = layer.query.forward(normed)?.reshape((rows, heads, key_width))?;
        let keys = layer.key.forward(normed)?.reshape((rows, kv_heads, key_width))?;
        let values = layer.value.forward(normed)?;
        let queries = angles.turn(self.rope.kind, &self.head_norm(queries, &layer.query_norm)?)?;
        let keys = angles.turn(self.rope.kind, &self.head_norm(keys, &layer.key_norm)?)?;
        with_rows(&keys, |keys| {
            with_rows(&values, |values| {
                for span in &batch.spans {
                    let keys = &keys[span.rows.start * kv_heads * key_width..span.rows.end * kv_heads * key_width];
                    let values =
                        &values[span.rows.start * kv_heads * value_width..span.rows.end * kv_heads * value_width];
                    kv.write(&span.blocks, number, span.start, keys, values);
                }
            })
        })??;
        let attended = with_rows(&queries, |queries| {
            attention::attention(self.head(), kv_heads, number, &batch.spans, queries, kv)
        })?;
        layer.attention_output.forward(&Tensor::from_vec(attended, (rows, heads * value_width), &Device::Cpu)?)
    }

    fn head_norm(&self, heads: Tensor, weight: &Option<Tensor>) -> Result<Tensor> {
        match weight {
            Some(weight) => self.norm(&heads, weight),
            None => Ok(heads),
        }
    }

    fn head(&self) -> Head {
        let DecoderSpec { key_width, value_width, .. } = self.spec;
        let (group, scale) = (self.spec.group(), self.spec.attention_scale);
        Head { key_width, value_width, group, scale, softcap: 0.0, window: 0 }
    }
}

/// The tensor's numbers, where they lie.
fn with_rows<T>(tensor: &Tensor, use_rows: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(use_rows(&values[start..end])),
        _ => Err(Error::Internal(format!("{:?} is not contiguous f32 on the CPU", tensor.shape()))),
    }
}
