//! Figures of a running engine. Counters only grow; the others are the state after the last step.

use std::time::Duration;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sequences that run: those of open requests that hold blocks of the key-value cache.
    pub live: usize,
    /// Of those, the ones whose client does not keep up.
    pub paused: usize,
    /// Requests whose prompt is being read, or that wait for a place.
    pub waiting: usize,
    /// Requests that gave their place up until their client keeps up again.
    pub parked: usize,
    /// Memory of the key-value cache: of all blocks that were ever used.
    pub kv_bytes: usize,
    /// Blocks that live sequences use, those that nobody uses but that keep what they hold for a next turn, and all that
    /// there may be.
    pub blocks_used: usize,
    pub blocks_kept: usize,
    pub blocks: usize,
    pub finished: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Prompt tokens computed; those computed again after a preemption count again.
    pub prompt_tokens: u64,
    /// Tokens that did not have to be computed, because the cache had them, and how many requests had such.
    pub reused_tokens: u64,
    pub prefix_hits: u64,
    pub completion_tokens: u64,
    /// Tokens guessed from a sequence's own text, and those of them that were right.
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    pub steps: u64,
    /// Sequences that took part, and tokens computed, summed over all steps: divided by `steps` the occupancy of a batch.
    pub step_sequences: u64,
    pub step_tokens: u64,
    /// Times a sequence lost its place, because memory was full or its client did not keep up.
    pub preemptions: u64,
    /// Steps that failed as a whole and were done again one sequence at a time.
    pub retries: u64,
    /// Time spent in the executor.
    pub busy: Duration,
    /// Of it, what went into prompts and into generated tokens, each step's divided by its tokens.
    pub prompt_time: Duration,
    pub completion_time: Duration,
}
