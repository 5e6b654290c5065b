//! How the engine schedules, and what that means for one model; loading has options of its own.

use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::kv::{BLOCK, blocks_for};
use crate::scheduler::Limits;

/// However many sequences decode, prompts go on.
const LEAST_PROMPT_TOKENS: usize = 8;
/// What each of `max_sequences` can count on where nobody says how much memory there is.
const USUAL_TOKENS: usize = 4096;
/// Rows that a matrix product computes in hardly more time than one, because it waits for its weights.
const SPECULATIVE_ROWS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    pub max_sequences: usize,
    /// The most tokens of a step; on a slow machine `Pace` chooses fewer.
    pub step_tokens: usize,
    /// The most memory that the key-value cache may take; it takes it as it is needed. `None`: enough for
    /// `max_sequences` of 4,096 tokens each (or of the context, if that is shorter), and for one of the whole context.
    pub kv_bytes: Option<usize>,
    /// Tokens that are kept after a request for a next one that begins the same, all together: 256 MiB for a model of a
    /// billion weights at the default of 8,192.
    pub kept_tokens: usize,
    /// Whether tokens may be guessed where the request does not say.
    pub speculate: bool,
    /// Seeds the requests that bring no seed.
    pub seed: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { max_sequences: 16, step_tokens: 512, kv_bytes: None, kept_tokens: 8192, speculate: true, seed: 0 }
    }
}

impl RunOptions {
    /// # Errors
    /// `InvalidRequest` where `kv_bytes` is too little for anything.
    pub fn check(&self, executor: &dyn Executor) -> Result<()> {
        let block = executor.block_bytes();
        match self.kv_bytes {
            Some(bytes) if bytes < block => {
                let reason = format!("{bytes} bytes are too few: {BLOCK} tokens of this model take {block}");
                Err(Error::invalid("kv_bytes", reason))
            }
            _ => Ok(()),
        }
    }

    pub fn limits(&self, executor: &dyn Executor) -> Limits {
        let context = executor.context_length();
        let usual = self.max_sequences.max(1).saturating_mul(blocks_for(context.min(USUAL_TOKENS)));
        let blocks = match self.kv_bytes {
            Some(bytes) => bytes / executor.block_bytes().max(1),
            None => usual.max(blocks_for(context)),
        };
        Limits {
            max_sequences: self.max_sequences,
            least_prompt_tokens: LEAST_PROMPT_TOKENS,
            context_length: context,
            blocks,
            kept_blocks: self.kept_tokens / BLOCK,
            speculative_rows: SPECULATIVE_ROWS,
        }
    }
}
