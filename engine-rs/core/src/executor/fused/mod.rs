//! The executor for this machine's processors: weights packed at load, a few fused passes for each layer over memory that
//! is kept from step to step, on threads of its own. What a pass computes is in `forward`; how, in the kernels.

mod attend;
mod attention;
mod closing;
mod experts;
mod forward;
mod projection;
mod rows;
mod weights;

use std::sync::Arc;

use quiver_kernels::KvLayout;

use super::pool::Pool;
use super::{Chunk, Executor, ExecutorOptions, Logits, context_length, kv_layout};
use crate::error::Result;
use crate::gguf::Gguf;
use crate::kv::BlockStore;
use crate::load_watch::LoadWatch;
use crate::model::{Batch, DecoderSpec};
use forward::{Buffers, Forward};
use weights::Weights;

pub struct FusedExecutor {
    weights: Weights,
    store: BlockStore,
    layout: KvLayout,
    pool: Pool,
    buffers: Buffers,
    context_length: usize,
}

impl FusedExecutor {
    /// # Errors
    /// Those of opening the weights, and `InvalidRequest` for a context longer than the model's.
    pub fn new(gguf: &Arc<Gguf>, options: &ExecutorOptions, watch: &LoadWatch) -> Result<FusedExecutor> {
        let spec = DecoderSpec::read(gguf)?;
        let context_length = context_length(&spec, options)?;
        let layout = kv_layout(&spec, options.kv)?;
        let pool = Pool::new(options.threads)?;
        Ok(FusedExecutor {
            weights: Weights::open(gguf, spec, context_length, watch)?,
            store: BlockStore::new(Some(layout.block_bytes())),
            buffers: Buffers::new(pool.threads()),
            context_length,
            layout,
            pool,
        })
    }
}

impl Executor for FusedExecutor {
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits> {
        let vocab = self.weights.vocab;
        let batch = Batch::new(chunks, self.context_length, vocab)?;
        if batch.tokens.is_empty() {
            return Ok(Logits { vocab, rows: Vec::new() });
        }
        self.store.reserve(batch.spans.iter().flat_map(|span| span.blocks.iter().copied()))?;
        let FusedExecutor { weights, store, layout, pool, buffers, .. } = self;
        let rows = Forward::new(weights, pool, buffers, &batch, store, layout).run();
        Ok(Logits { vocab, rows })
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab(&self) -> usize {
        self.weights.vocab
    }

    fn block_bytes(&self) -> usize {
        self.layout.block_bytes()
    }

    fn kv_bytes(&self) -> usize {
        self.store.bytes()
    }
}
