//! The executor on candle tensors and this machine's processors. It owns the decoder, the cache and the threads; what a
//! batch means is the model's business.

use std::sync::Arc;

use rayon::ThreadPool;

use super::{Chunk, Executor, ExecutorOptions, Logits, SeqId, threads};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kv::{KvStore, PagedKv};
use crate::load_watch::LoadWatch;
use crate::model::{Batch, Decoder};

pub struct CandleExecutor {
    decoder: Decoder,
    kv: Box<dyn KvStore>,
    threads: ThreadPool,
    context_length: usize,
}

impl CandleExecutor {
    pub fn new(gguf: Arc<Gguf>, options: &ExecutorOptions, watch: &LoadWatch) -> Result<CandleExecutor> {
        let decoder = Decoder::open_watched(&gguf, watch)?;
        let trained = decoder.spec.context_length;
        let context_length = options.context_length.unwrap_or(trained);
        if context_length == 0 || context_length > trained {
            let reason = format!("{context_length} is outside 1..={trained}, what the model was trained for");
            return Err(Error::InvalidRequest { field: "context_length".to_owned(), reason });
        }
        Ok(CandleExecutor {
            kv: Box::new(PagedKv::new(decoder.kv_shape(), options.kv)),
            threads: threads::pool(options.threads)?,
            decoder,
            context_length,
        })
    }

    fn reserve(&mut self, batch: &Batch) -> Result<()> {
        for span in &batch.spans {
            let length = self.kv.length(span.seq);
            if length != span.start {
                let message = format!("sequence {} has {length} tokens, not {}", span.seq, span.start);
                return Err(Error::Internal(message));
            }
            self.kv.reserve(span.seq, span.end())?;
        }
        Ok(())
    }

    /// Gives back what a failed step reserved.
    fn undo(&mut self, batch: &Batch) {
        for span in &batch.spans {
            match self.kv.length(span.seq) {
                0 => self.kv.release(span.seq),
                length => self.kv.truncate(span.seq, length),
            }
        }
    }
}

impl Executor for CandleExecutor {
    fn step(&mut self, chunks: &[Chunk<'_>]) -> Result<Logits> {
        let vocab = self.decoder.vocab;
        let batch = Batch::new(chunks, self.context_length, vocab)?;
        if batch.tokens.is_empty() {
            return Ok(Logits { vocab, rows: Vec::new() });
        }
        let result = self.reserve(&batch).and_then(|()| {
            let (decoder, kv) = (&self.decoder, self.kv.as_mut());
            self.threads.install(|| decoder.forward(&batch, kv))
        });
        match result {
            Ok(rows) => {
                batch.spans.iter().for_each(|span| self.kv.commit(span.seq, span.end()));
                Ok(Logits { vocab, rows })
            }
            Err(error) => {
                self.undo(&batch);
                Err(error)
            }
        }
    }

    fn release(&mut self, seq: SeqId) {
        self.kv.release(seq);
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.kv.truncate(seq, len);
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab(&self) -> usize {
        self.decoder.vocab
    }

    fn live_sequences(&self) -> usize {
        self.kv.live_sequences()
    }

    fn kv_bytes(&self) -> usize {
        self.kv.bytes()
    }
}
