//! Figures of a running engine. Counters only grow; the others are the state after the last step.

use std::time::Duration;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Sequences that hold memory in the executor.
    pub live: usize,
    /// What their keys and values take.
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
    pub completion_tokens: u64,
    pub steps: u64,
    /// Times a sequence lost its place, because memory was full or its client did not keep up.
    pub preemptions: u64,
    /// Steps that failed as a whole and were done again one sequence at a time.
    pub retries: u64,
    /// Time spent in the executor.
    pub busy: Duration,
}
