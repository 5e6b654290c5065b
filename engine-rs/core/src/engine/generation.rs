//! One request from its first token to its last: sampling, text that is safe to show, log probabilities, times.
//! Knows nothing of other requests.

use super::language::Language;
use crate::error::{Error, Result};
use crate::event::{Event, Reason, Timings, TokenLogprob, Work};
use crate::request::GenerateRequest;
use crate::sampler::Sampler;
use crate::sampler::logprobs::{Scored, logprobs};
use crate::stop::StopFilter;
use crate::tokenizer::Utf8Stream;
use std::collections::VecDeque;
use std::time::Instant;

pub struct Generation {
    id: u64,
    /// How it ended, once its last token is known.
    pub ended: Option<Reason>,
    sampler: Sampler,
    characters: Utf8Stream,
    stops: StopFilter,
    alternatives: Option<usize>,
    ignore_eos: bool,
    prompt_tokens: usize,
    completion_tokens: u32,
    /// Bytes of text decoded, and bytes of it shown.
    decoded: usize,
    shown: usize,
    /// Log probabilities of tokens whose text is not shown yet, with the place where that text begins.
    scores: VecDeque<(usize, TokenLogprob)>,
    submitted: Instant,
    admitted: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    work: Work,
}

impl Generation {
    pub fn new(id: u64, request: GenerateRequest, prompt: &[u32], fallback_seed: u64, submitted: Instant) -> Self {
        Self {
            id,
            sampler: Sampler::new(&request, prompt, fallback_seed),
            characters: Utf8Stream::new(),
            ended: None,
            stops: StopFilter::new(request.stop),
            alternatives: request.logprobs.map(|count| count as usize),
            ignore_eos: request.ignore_eos,
            prompt_tokens: prompt.len(),
            completion_tokens: 0,
            decoded: 0,
            shown: 0,
            scores: VecDeque::new(),
            submitted,
            admitted: None,
            first_token: None,
            last_token: None,
            work: Work::default(),
        }
    }

    /// It got a place, and `cached` of its tokens need not be computed; only the first time counts.
    pub fn admitted(&mut self, now: Instant, cached: usize) {
        if self.admitted.is_none() {
            (self.admitted, self.work.cached_tokens) = (Some(now), cached);
        }
    }

    /// Of `drafted` tokens that were guessed `accepted` were right.
    pub fn guessed(&mut self, drafted: usize, accepted: usize) {
        self.work.drafted_tokens += drafted as u32;
        self.work.accepted_tokens += accepted as u32;
    }

    /// Chooses the next token.
    pub fn sample(&mut self, logits: &[f32], language: &dyn Language) -> Result<u32> {
        let token = self.sampler.sample(logits)?;
        if let Some(count) = self.alternatives
            && !self.ends(token, language)
        {
            let (own, top) = logprobs(logits, token, count).ok_or(Error::NoFiniteLogits)?;
            let top = top.into_iter().map(|scored| score(scored, language)).collect();
            self.scores.push_back((self.decoded, TokenLogprob { top, ..score(own, language) }));
        }
        Ok(token)
    }

    /// Takes a sampled token into the text. `full`: there is no room for another. Returns how generation ended, if it
    /// did, and adds the text to tell the client.
    pub fn push(
        &mut self,
        token: u32,
        full: bool,
        language: &dyn Language,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Option<Reason> {
        self.first_token.get_or_insert(now);
        self.last_token = Some(now);
        self.completion_tokens += 1;
        let ended = self.ends(token, language);
        let bytes = if ended { &[][..] } else { language.bytes(token) };
        let decoded = self.characters.push(bytes);
        let (mut text, stopped) = self.filter(&decoded);
        let reason = match (ended || stopped, full) {
            (true, _) => Some(Reason::Stop),
            (false, true) => Some(Reason::Length),
            (false, false) => None,
        };
        if reason.is_some() && !stopped {
            text.push_str(&self.rest());
        }
        self.show(text, reason.is_some() && !stopped, events);
        reason
    }

    pub fn completion_tokens(&self) -> u32 {
        self.completion_tokens
    }

    pub fn finished(&self, reason: Reason) -> Event {
        Event::Finished {
            id: self.id,
            reason,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            timings: self.timings(),
            work: self.work,
        }
    }

    fn ends(&self, token: u32, language: &dyn Language) -> bool {
        !self.ignore_eos && language.ends(token)
    }

    fn filter(&mut self, decoded: &str) -> (String, bool) {
        self.decoded += decoded.len();
        let passed = self.stops.push(decoded);
        self.shown += passed.text.len();
        (passed.text, passed.stopped)
    }

    /// All text still held back, at the end.
    fn rest(&mut self) -> String {
        let unfinished = self.characters.finish();
        let (mut text, stopped) = self.filter(&unfinished);
        if !stopped {
            text.push_str(&self.stops.finish());
        }
        text
    }

    /// Adds a text event, if there is something to tell. Log probabilities go with the text of their token, so that a
    /// stop string cannot be read from them.
    fn show(&mut self, text: String, all: bool, events: &mut Vec<Event>) {
        let ready = if all {
            self.scores.len()
        } else if text.is_empty() {
            0
        } else {
            self.scores.partition_point(|(start, _)| *start < self.shown)
        };
        if text.is_empty() && ready == 0 {
            return;
        }
        let logprobs = self.scores.drain(..ready).map(|(_, score)| score).collect();
        events.push(Event::Text { id: self.id, text, tokens: self.completion_tokens, logprobs });
    }

    fn timings(&self) -> Timings {
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => std::time::Duration::ZERO,
        };
        Timings {
            queue: between(Some(self.submitted), self.admitted),
            prefill: between(self.admitted, self.first_token),
            decode: between(self.first_token, self.last_token),
            first_token: between(Some(self.submitted), self.first_token),
        }
    }
}

fn score(scored: Scored, language: &dyn Language) -> TokenLogprob {
    TokenLogprob {
        token: scored.token,
        bytes: language.bytes(scored.token).to_vec(),
        logprob: scored.value,
        top: Vec::new(),
    }
}
