//! Figures of a running engine. Counters only grow; the others are the state after the last step.

use std::time::Duration;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sequences of open requests that hold memory in the executor.
    pub live: usize,
    /// Finished sequences that are kept for a next turn, as long as there is memory.
    pub kept: usize,
    /// What the keys and values of both take.
    pub kv_bytes: usize,
    /// Of those, the ones whose client does not keep up.
    pub paused: usize,
    /// Requests whose prompt is being read, or that wait for a place.
    pub waiting: usize,
    /// Requests that gave their place up until their client keeps up again.
    pub parked: usize,
    pub finished: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Prompt tokens computed; those computed again after a preemption count again.
    pub prompt_tokens: u64,
    /// Tokens that did not have to be computed, because a kept sequence had them.
    pub reused_tokens: u64,
    pub completion_tokens: u64,
    pub steps: u64,
    /// Times a sequence lost its place, because memory was full or its client did not keep up.
    pub preemptions: u64,
    /// Steps that failed as a whole and were done again one sequence at a time.
    pub retries: u64,
    /// Time spent in the executor.
    pub busy: Duration,
}
