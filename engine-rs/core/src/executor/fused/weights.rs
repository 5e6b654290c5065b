//! A decoder's weights as the fused executor uses them: matrices packed, vectors decoded, and the embedding left in the
//! file's mapping, of which only single rows are read.

use std::sync::Arc;

use quiver_kernels::{Formats, Isa, Matrix};

use super::closing::Closing;
use super::projection::Projection;
use crate::error::{Error, Result};
use crate::gguf::{BlockType, Gguf};
use crate::linear::Weight;
use crate::load_watch::LoadWatch;
use crate::model::{DecoderSpec, ExpertSpec, Loader, Rope, SharedExpert as SharedSpec};

#[derive(Debug)]
pub struct Weights {
    pub spec: DecoderSpec,
    pub vocab: usize,
    pub embedding: Weight,
    pub layers: Vec<Layer>,
    pub output_norm: Vec<f32>,
    pub output: Projection,
    pub ropes: Vec<Rope>,
}

#[derive(Debug)]
pub struct Layer {
    pub attention_norm: Vec<f32>,
    /// Queries, keys and values side by side.
    pub qkv: Projection,
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    pub attention_output: Projection,
    pub attention_post_norm: Option<Vec<f32>>,
    pub feed_forward_norm: Vec<f32>,
    pub feed_forward: FeedForward,
    pub feed_forward_post_norm: Option<Vec<f32>>,
}

#[derive(Debug)]
pub enum FeedForward {
    Dense(Dense),
    Experts(Experts),
}

#[derive(Debug)]
pub struct Dense {
    /// Gates and values side by side.
    pub gate_up: Projection,
    pub down: Projection,
}

/// A mixture of experts: the router scores all, a row uses the best few.
#[derive(Debug)]
pub struct Experts {
    pub spec: ExpertSpec,
    pub router: Projection,
    pub experts: Vec<Dense>,
    pub shared: Option<SharedExpert>,
}

/// An expert that every row goes through.
#[derive(Debug)]
pub struct SharedExpert {
    pub dense: Dense,
    /// One row: how much of the expert counts.
    pub gate: Option<Projection>,
}

impl Weights {
    /// # Errors
    /// `MissingTensor`, `BadTensor` or `UnsupportedTensorType` with the tensor's name;
    /// `UnsupportedModel` for a tensor that the architecture has no place for; `OutOfMemory`.
    pub fn open(file: &Arc<Gguf>, spec: DecoderSpec, context_length: usize, watch: &LoadWatch) -> Result<Weights> {
        let vocab = match file.tensor("token_embd.weight")?.info.dims[..] {
            [vocab, _] => vocab,
            _ => return Err(file.malformed("`token_embd.weight` is not a matrix")),
        };
        let mut opener = Opener { loader: Loader::new(file, watch), spec: &spec, isa: Isa::best() };
        let embedding = opener.loader.weight("token_embd.weight", vocab, spec.width)?;
        let tied = !opener.loader.has("output.weight");
        let output = if tied { "token_embd" } else { "output" };
        let output = opener.projection(&[(output, vocab)], spec.width)?;
        let layers = (0..spec.layers).map(|number| opener.layer(number)).collect::<Result<_>>()?;
        // After the layers, whose tensors show that heads are as wide as the file claims.
        let ropes = opener.ropes(context_length)?;
        let output_norm = opener.loader.vector("output_norm.weight", spec.width)?;
        opener.loader.finish()?;
        Ok(Weights { vocab, embedding, layers, output_norm, output, ropes, spec })
    }
}

impl Layer {
    /// How attention's branch goes back.
    pub fn attention_closing(&self) -> Closing<'_> {
        let (bias, norm) = (self.attention_output.bias.as_deref(), self.attention_post_norm.as_deref());
        Closing { present: true, bias, norm }
    }

    /// How the feed-forward's branch goes back.
    pub fn feed_forward_closing(&self) -> Closing<'_> {
        let bias = match &self.feed_forward {
            FeedForward::Dense(dense) => dense.down.bias.as_deref(),
            FeedForward::Experts(_) => None,
        };
        Closing { present: true, bias, norm: self.feed_forward_post_norm.as_deref() }
    }
}

impl Experts {
    /// What the router and the expert of all rows want their input as.
    fn formats(&self) -> Formats {
        let shared = self.shared.iter();
        let shared = shared.flat_map(|shared| [Some(&shared.dense.gate_up), shared.gate.as_ref()]).flatten();
        shared.fold(self.router.formats(), |all, part| all.union(part.formats()))
    }
}

impl FeedForward {
    /// What its first part wants its input as.
    pub fn formats(&self) -> Formats {
        match self {
            FeedForward::Dense(dense) => dense.gate_up.formats(),
            FeedForward::Experts(experts) => experts.formats(),
        }
    }
}

struct Opener<'a> {
    loader: Loader<'a>,
    spec: &'a DecoderSpec,
    isa: Isa,
}

impl Opener<'_> {
    fn ropes(&mut self, context_length: usize) -> Result<Vec<Rope>> {
        let open = |spec| Ok(Rope::new(spec, self.loader.divisors(spec, context_length)?.as_deref()));
        self.spec.ropes.iter().map(open).collect()
    }

    fn layer(&mut self, number: usize) -> Result<Layer> {
        let DecoderSpec { width, heads, kv_heads, key_width, value_width, .. } = *self.spec;
        let (queries, keys, values) = (heads * key_width, kv_heads * key_width, kv_heads * value_width);
        let name = |part: &str| format!("blk.{number}.{part}");
        let (q, k, v) = (name("attn_q"), name("attn_k"), name("attn_v"));
        let qkv = match self.loader.has(&name("attn_qkv.weight")) {
            true => self.projection(&[(&name("attn_qkv"), queries + keys + values)], width)?,
            false => self.projection(&[(&q, queries), (&k, keys), (&v, values)], width)?,
        };
        Ok(Layer {
            attention_norm: self.norm(&name("attn_norm"), width)?,
            qkv,
            query_norm: self.opt_norm(&name("attn_q_norm"), key_width)?,
            key_norm: self.opt_norm(&name("attn_k_norm"), key_width)?,
            attention_output: self.projection(&[(&name("attn_output"), width)], heads * value_width)?,
            attention_post_norm: self.opt_norm(&name("post_attention_norm"), width)?,
            feed_forward_norm: self.norm(&name("ffn_norm"), width)?,
            feed_forward: self.feed_forward(number)?,
            feed_forward_post_norm: self.opt_norm(&name("post_ffw_norm"), width)?,
        })
    }

    fn feed_forward(&mut self, number: usize) -> Result<FeedForward> {
        let DecoderSpec { width, feed_forward, experts, .. } = *self.spec;
        if let Some(experts) = experts {
            return Ok(FeedForward::Experts(self.experts(number, &experts, width)?));
        }
        Ok(FeedForward::Dense(self.dense(number, "", feed_forward, width)?))
    }

    fn experts(&mut self, number: usize, experts: &ExpertSpec, width: usize) -> Result<Experts> {
        let name = |part: &str| format!("blk.{number}.{part}");
        let router = self.projection(&[(&name("ffn_gate_inp"), experts.count)], width)?;
        let (count, inner) = (experts.count, experts.feed_forward);
        let gates = self.stack(&name("ffn_gate_exps"), count, inner, width)?;
        let ups = self.stack(&name("ffn_up_exps"), count, inner, width)?;
        let downs = self.stack(&name("ffn_down_exps"), count, width, inner)?;
        let dense = gates.into_iter().zip(ups).zip(downs).map(|((gate, up), down)| Dense {
            gate_up: Projection::new(vec![(gate, None), (up, None)]),
            down: Projection::new(vec![(down, None)]),
        });
        let shared = experts.shared.map(|shared| self.shared_expert(number, shared, width)).transpose()?;
        Ok(Experts { spec: *experts, router, experts: dense.collect(), shared })
    }

    fn shared_expert(&mut self, number: usize, shared: SharedSpec, width: usize) -> Result<SharedExpert> {
        let gate = shared.gated.then(|| self.shared_gate(number, width)).transpose()?;
        Ok(SharedExpert { dense: self.dense(number, "_shexp", shared.feed_forward, width)?, gate })
    }

    /// A matrix of one row, which files hold as a vector.
    fn shared_gate(&mut self, number: usize, width: usize) -> Result<Projection> {
        let name = format!("blk.{number}.ffn_gate_inp_shexp.weight");
        let values = self.loader.vector(&name, width)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Projection::new(vec![(pack(self.isa, &name, BlockType::F32, 1, width, &bytes)?, None)]))
    }

    fn dense(&mut self, number: usize, suffix: &str, inner: usize, width: usize) -> Result<Dense> {
        let name = |part: &str| format!("blk.{number}.{part}{suffix}");
        let (gate, up) = (name("ffn_gate"), name("ffn_up"));
        let gate_up = match self.loader.has(&format!("{gate}.weight")) {
            true => self.projection(&[(&gate, inner), (&up, inner)], width)?,
            false => self.projection(&[(&up, 2 * inner)], width)?,
        };
        Ok(Dense { gate_up, down: self.projection(&[(&name("ffn_down"), width)], inner)? })
    }

    /// Matrices `{name}.weight` of so many rows, with their biases where there are any, side by side.
    fn projection(&mut self, parts: &[(&str, usize)], columns: usize) -> Result<Projection> {
        let mut matrices = Vec::with_capacity(parts.len());
        for (name, rows) in parts {
            let weight = format!("{name}.weight");
            let view = self.loader.tensor(&weight, &[*rows, columns])?;
            let matrix = pack(self.isa, &weight, view.info.kind, *rows, columns, view.data)?;
            self.loader.file.release(&view.info.range);
            let bias = format!("{name}.bias");
            let bias = self.loader.has(&bias).then(|| self.loader.vector(&bias, *rows)).transpose()?;
            matrices.push((matrix, bias));
        }
        Ok(Projection::new(matrices))
    }

    /// A tensor of `count` matrices, one for each expert.
    fn stack(&mut self, name: &str, count: usize, rows: usize, columns: usize) -> Result<Vec<Matrix>> {
        let weight = format!("{name}.weight");
        let view = self.loader.tensor(&weight, &[count, rows, columns])?;
        let matrices = view.data.chunks_exact(view.data.len() / count);
        let matrices = matrices.map(|bytes| pack(self.isa, &weight, view.info.kind, rows, columns, bytes));
        let matrices = matrices.collect::<Result<_>>()?;
        self.loader.file.release(&view.info.range);
        Ok(matrices)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Vec<f32>> {
        self.loader.vector(&format!("{name}.weight"), width)
    }

    fn opt_norm(&mut self, name: &str, width: usize) -> Result<Option<Vec<f32>>> {
        self.loader.has(&format!("{name}.weight")).then(|| self.norm(name, width)).transpose()
    }
}

fn pack(isa: Isa, name: &str, kind: BlockType, rows: usize, columns: usize, bytes: &[u8]) -> Result<Matrix> {
    Matrix::pack(isa, kind, rows, columns, bytes)
        .map_err(|error| Error::OutOfMemory { what: format!("the weights of `{name}`"), bytes: error.bytes })
}
