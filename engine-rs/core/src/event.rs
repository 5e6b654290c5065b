//! What the engine tells a client: frozen values, no behaviour. Each accepted request gets any number of `Started` and
//! `Text`, then exactly one `Finished` or `Failed`.

use std::time::Duration;

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The model ended its answer, or a stop string appeared.
    Stop,
    /// The token limit or the end of the context was reached.
    Length,
    /// The client went away.
    Cancelled,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A token and the model's own log probability of it (see `sampler::logprobs`).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    /// The bytes it adds to the text: perhaps part of a character, perhaps none.
    pub bytes: Vec<u8>,
    pub logprob: f32,
    /// The most likely tokens at this place, best first; empty in the entries of `top` itself.
    pub top: Vec<TokenLogprob>,
}

/// How long each phase took. Phases that were not reached are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the first step that computed a part of it.
    pub queue: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// From submission to the first token.
    pub first_token: Duration,
}

/// What a request cost, and what it was spared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Prompt tokens that did not have to be computed, because the cache had them.
    pub cached_tokens: usize,
    /// Tokens guessed from its own text, and those of them that were right.
    pub drafted_tokens: u32,
    pub accepted_tokens: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The prompt is read and waits for its turn.
    Started {
        id: u64,
        prompt_tokens: usize,
    },
    /// More text. `tokens` counts all tokens generated so far, those held back in unfinished text included.
    Text {
        id: u64,
        text: String,
        tokens: u32,
        logprobs: Vec<TokenLogprob>,
    },
    Finished {
        id: u64,
        reason: Reason,
        prompt_tokens: usize,
        completion_tokens: u32,
        timings: Timings,
        work: Work,
    },
    Failed {
        id: u64,
        code: &'static str,
        message: String,
    },
}

impl Event {
    /// The request it belongs to.
    pub fn id(&self) -> u64 {
        match self {
            Self::Started { id, .. } | Self::Text { id, .. } | Self::Finished { id, .. } | Self::Failed { id, .. } => {
                *id
            }
        }
    }
}
