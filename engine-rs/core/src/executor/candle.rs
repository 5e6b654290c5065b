//! The executor on candle tensors and this machine's processors. It owns the decoder, the cache and the threads; what a
//! batch means is the model's business.

use std::sync::Arc;

use rayon::ThreadPool;

use super::{Chunk, Executor, ExecutorOptions, Logits, context_length, kv_layout, threads};
use crate::error::Result;
use crate::gguf::Gguf;
use crate::kv::KvCache;
use crate::load_watch::LoadWatch;
use crate::model::{Batch, Decoder};

pub struct CandleExecutor {
    decoder: Decoder,
    kv: KvCache,
    threads: ThreadPool,
    context_length: usize,
}

impl CandleExecutor {
    pub fn new(gguf: Arc<Gguf>, options: &ExecutorOptions, watch: &LoadWatch) -> Result<CandleExecutor> {
        let decoder = Decoder::open_watched(&gguf, watch)?;
        let layout = kv_layout(&decoder.spec, options.kv)?;
        Ok(CandleExecutor {
            kv: KvCache::new(layout),
            threads: threads::pool(options.threads)?,
            context_length: context_length(&decoder.spec, options)?,
            decoder,
        })
    }
}

impl Executor for CandleExecutor {
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits> {
        let vocab = self.decoder.vocab;
        let batch = Batch::new(chunks, self.context_length, vocab)?;
        if batch.tokens.is_empty() {
            return Ok(Logits { vocab, rows: Vec::new() });
        }
        batch.spans.iter().try_for_each(|span| self.kv.reserve(&span.blocks))?;
        let (decoder, kv) = (&self.decoder, &mut self.kv);
        let rows = self.threads.install(|| decoder.forward(&batch, kv))?;
        Ok(Logits { vocab, rows })
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab(&self) -> usize {
        self.decoder.vocab
    }

    fn block_bytes(&self) -> usize {
        self.kv.block_bytes()
    }

    fn kv_bytes(&self) -> usize {
        self.kv.bytes()
    }
}
