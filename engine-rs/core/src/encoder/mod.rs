//! Encoders of the BERT family (bert, nomic-bert): texts in, one vector of length 1 for each out. Every operation
//! computes a row alone, or the rows of one text alone, so an embedding does not depend on what it is computed with.
//! `Encoder` is the arithmetic; `Embedder` is the running service over it.

mod attention;
mod embedder;
mod loader;
mod projection;
mod rotation;
mod spec;
mod turns;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

pub use embedder::{Embedded, Embedder, EncoderInfo, Input, Ticket};
pub use spec::{EncoderSpec, Pooling};

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kernels::{Isa, add, gate, gelu};
use crate::linear::Weight;
use attention::{Attention, Rows};
use loader::{Loader, Norm};
use projection::Projection;
use rotation::Rotation;

/// Rows of element-wise work for one task.
const ROWS: usize = 16;

/// An encoder ready to run. Weights stay in the file's mapping.
#[derive(Debug)]
pub struct Encoder {
    pub spec: EncoderSpec,
    pub vocab: usize,
    isa: Isa,
    tokens: Weight,
    /// Added to every token: the embedding of the first segment.
    segment: Option<Vec<f32>>,
    positions: Option<Weight>,
    norm: Norm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
enum Inputs {
    Fused(Projection),
    /// Queries, keys and values.
    Split(Box<[Projection; 3]>),
}

#[derive(Debug)]
struct Layer {
    inputs: Inputs,
    output: Projection,
    attention_norm: Norm,
    up: Projection,
    gate: Option<Projection>,
    down: Projection,
    norm: Norm,
}

impl Layer {
    fn open(loader: &mut Loader<'_>, spec: &EncoderSpec, number: usize) -> Result<Layer> {
        let EncoderSpec { width, feed_forward, .. } = *spec;
        let name = |part: &str| format!("blk.{number}.{part}");
        let inputs = if loader.has(&name("attn_qkv.weight")) {
            Inputs::Fused(loader.projection(&name("attn_qkv"), 3 * width, width)?)
        } else {
            let mut part = |part| loader.projection(&name(part), width, width);
            Inputs::Split(Box::new([part("attn_q")?, part("attn_k")?, part("attn_v")?]))
        };
        let gated = spec.rope_base.is_some();
        Ok(Layer {
            inputs,
            output: loader.projection(&name("attn_output"), width, width)?,
            attention_norm: loader.norm(&name("attn_output_norm"), width)?,
            up: loader.projection(&name("ffn_up"), feed_forward, width)?,
            gate: gated.then(|| loader.projection(&name("ffn_gate"), feed_forward, width)).transpose()?,
            down: loader.projection(&name("ffn_down"), width, feed_forward)?,
            norm: loader.norm(&name("layer_output_norm"), width)?,
        })
    }
}

impl Encoder {
    /// # Errors
    /// Those of `EncoderSpec::read`; `MissingTensor`, `BadTensor` or `UnsupportedTensorType` with the tensor's name; and
    /// `UnsupportedModel` for a tensor that the architecture has no place for.
    pub fn open(file: &Arc<Gguf>) -> Result<Encoder> {
        let spec = EncoderSpec::read(file)?;
        let mut loader = Loader::new(file, spec.norm_epsilon);
        let vocab = loader.rows("token_embd.weight")?;
        let tokens = loader.weight("token_embd.weight", vocab, spec.width)?;
        let types = "token_types.weight";
        let segment = if loader.has(types) {
            let mut first = vec![0.0; spec.width];
            loader.weight(types, loader.rows(types)?, spec.width)?.decode_rows(0, &mut first);
            Some(first)
        } else {
            None
        };
        let looked_up = spec.rope_base.is_none();
        let positions =
            looked_up.then(|| loader.weight("position_embd.weight", spec.context_length, spec.width)).transpose()?;
        let norm = loader.norm("token_embd_norm", spec.width)?;
        let layers = (0..spec.layers).map(|number| Layer::open(&mut loader, &spec, number)).collect::<Result<_>>()?;
        loader.finish()?;
        Ok(Encoder { isa: Isa::best(), vocab, tokens, segment, positions, norm, layers, spec })
    }

    /// One vector of length 1 for each text.
    ///
    /// # Errors
    /// `InvalidRequest` for an empty text or an unknown token, `ContextOverflow` for a text longer than the context.
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        texts.iter().try_for_each(|text| self.check(text))?;
        let mut end = 0;
        let ranges: Vec<Range<usize>> = texts
            .iter()
            .map(|text| {
                let start = end;
                end += text.len();
                start..end
            })
            .collect();
        let hidden = self.forward(texts, &ranges);
        Ok(ranges.par_iter().map(|range| self.pool(&hidden, range.clone())).collect())
    }

    /// Whether a text can be computed at all.
    pub fn check(&self, text: &[u32]) -> Result<()> {
        let limit = self.spec.context_length;
        if text.is_empty() {
            return Err(Error::invalid("input", "a text without tokens has no embedding"));
        }
        if let Some(unknown) = text.iter().find(|token| **token as usize >= self.vocab) {
            let reason = format!("token {unknown} is not in the vocabulary of {}", self.vocab);
            return Err(Error::invalid("input", reason));
        }
        match text.len() > limit {
            true => Err(Error::ContextOverflow { prompt: text.len(), requested: 0, limit }),
            false => Ok(()),
        }
    }

    fn forward(&self, texts: &[&[u32]], ranges: &[Range<usize>]) -> Vec<f32> {
        let mut hidden = self.look_up(texts);
        self.norm_rows(&self.norm, &mut hidden);
        let longest = ranges.iter().map(Range::len).max().unwrap_or(0);
        let rotation = self.spec.rope_base.map(|base| Rotation::new(base, self.spec.head_width(), longest));
        for layer in &self.layers {
            let attended = self.attend(layer, &hidden, ranges, rotation.as_ref());
            add(self.isa, &mut hidden, &layer.output.forward(self.isa, &attended));
            self.norm_rows(&layer.attention_norm, &mut hidden);
            let inner = self.feed_forward(layer, &hidden);
            add(self.isa, &mut hidden, &layer.down.forward(self.isa, &inner));
            self.norm_rows(&layer.norm, &mut hidden);
        }
        hidden
    }

    /// The sum of each token's embeddings: its own, its segment's, its position's.
    fn look_up(&self, texts: &[&[u32]]) -> Vec<f32> {
        let width = self.spec.width;
        let places: Vec<(u32, usize)> = texts.iter().flat_map(|text| text.iter().copied().zip(0..)).collect();
        let mut hidden = vec![0.0; places.len() * width];
        hidden.par_chunks_mut(width).zip(places).with_min_len(ROWS).for_each_init(
            || vec![0.0; width],
            |other, (row, (token, position))| {
                self.tokens.decode_rows(token as usize, row);
                if let Some(segment) = &self.segment {
                    add(self.isa, row, segment);
                }
                if let Some(positions) = &self.positions {
                    positions.decode_rows(position, other);
                    add(self.isa, row, other);
                }
            },
        );
        hidden
    }

    fn attend(&self, layer: &Layer, hidden: &[f32], texts: &[Range<usize>], rotation: Option<&Rotation>) -> Vec<f32> {
        let EncoderSpec { width, heads, .. } = self.spec;
        let run = |[queries, keys, values]: [Rows<'_>; 3]| {
            let (isa, width) = (self.isa, self.spec.head_width());
            Attention { isa, heads, width, rotation, queries, keys, values }.run(texts)
        };
        match &layer.inputs {
            Inputs::Fused(fused) => {
                let values = &fused.forward(self.isa, hidden);
                run([0, 1, 2].map(|part| Rows { values, stride: 3 * width, offset: part * width }))
            }
            Inputs::Split(parts) => {
                let parts = parts.each_ref().map(|part| part.forward(self.isa, hidden));
                run(parts.each_ref().map(|values| Rows { values, stride: width, offset: 0 }))
            }
        }
    }

    fn feed_forward(&self, layer: &Layer, hidden: &[f32]) -> Vec<f32> {
        let task = ROWS * self.spec.feed_forward;
        let mut inner = layer.up.forward(self.isa, hidden);
        match &layer.gate {
            Some(projection) => {
                let mut gates = projection.forward(self.isa, hidden);
                let pairs = gates.par_chunks_mut(task).zip(inner.par_chunks(task));
                pairs.for_each(|(gates, inner)| gate(self.isa, gates, inner));
                gates
            }
            None => {
                inner.par_chunks_mut(task).for_each(|inner| gelu(self.isa, inner));
                inner
            }
        }
    }

    fn norm_rows(&self, norm: &Norm, rows: &mut [f32]) {
        rows.par_chunks_mut(ROWS * self.spec.width).for_each(|rows| norm.apply(self.isa, rows));
    }

    fn pool(&self, hidden: &[f32], text: Range<usize>) -> Vec<f32> {
        let width = self.spec.width;
        let row = |at: usize| &hidden[at * width..][..width];
        let mut pooled = match self.spec.pooling {
            Pooling::First => row(text.start).to_vec(),
            Pooling::Last => row(text.end - 1).to_vec(),
            // The length is made 1 below, so the sum does for the mean.
            Pooling::Mean => text.fold(vec![0.0; width], |mut sum, at| {
                add(self.isa, &mut sum, row(at));
                sum
            }),
        };
        normalise(&mut pooled);
        pooled
    }
}

/// Makes the vector's length 1, unless it has none.
pub fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests;
