//! A grammar as it follows one answer.

use crate::error::{Error, Result};
use llguidance::Matcher;

/// What may come next, after the tokens taken so far.
pub struct Grammar {
    matcher: Box<Matcher>,
    /// How many tokens the grammar knows; a model's logits may be padded beyond.
    size: usize,
}

impl Grammar {
    pub(super) fn new(matcher: Matcher, size: usize) -> Self {
        Self { matcher: Box::new(matcher), size }
    }

    /// One more at the same place, that shares nothing with this one.
    pub fn copy(&self) -> Self {
        Self::new(self.matcher.deep_clone(), self.size)
    }

    /// Whether `token` may come next. Much cheaper than `restrict`, so this is asked first.
    pub fn allows(&mut self, token: u32) -> Result<bool> {
        if token as usize >= self.size {
            return Ok(false);
        }
        let count = self.matcher.validate_tokens(&[token]).map_err(failed)?;
        Ok(count == 1)
    }

    /// Makes every token impossible that may not come next.
    pub fn restrict(&mut self, logits: &mut [f32]) -> Result<()> {
        let mask = self.matcher.compute_mask().map_err(failed)?;
        for (token, logit) in logits.iter_mut().enumerate() {
            if token >= self.size || !mask.is_allowed(token as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Moves on behind `token`, which was allowed.
    pub fn take(&mut self, token: u32) -> Result<()> {
        self.matcher.consume_token(token).map_err(failed)
    }

    /// Nothing more may come.
    pub fn complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

/// The longest complaint in characters: some repeat the whole grammar.
const MAX_COMPLAINT: usize = 300;

/// The first line: what follows it is the parser's state.
pub(super) fn first_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    if text.contains("NoExtensionBias") {
        return "no text can follow it".to_owned();
    }
    let line = text.lines().next().unwrap_or_default().trim_end_matches(['.', ' ']);
    match line.char_indices().nth(MAX_COMPLAINT) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

fn failed<E: std::fmt::Display>(error: E) -> Error {
    Error::Grammar(first_line(&error))
}
