//! Requests to tokens and tokens to text, for one model. A trait, so that the engine can be tested without a model.

use crate::error::{Error, Result};
use crate::request::{GenerateRequest, Prompt};

pub trait Language: Send + Sync {
    /// The tokens of the request's prompt. May take long for long prompts.
    fn read(&self, request: &GenerateRequest) -> Result<Vec<u32>>;
    /// What a token adds to the text; empty for those that only steer.
    fn bytes(&self, token: u32) -> &[u8];
    /// The model ends its answer with this token.
    fn ends(&self, token: u32) -> bool;
    /// Tokens that steer and show nothing, with their names.
    fn controls(&self) -> Vec<(u32, &[u8])>;
    /// Number of tokens.
    fn size(&self) -> usize;
    /// Whether conversations can be read.
    fn has_chat_template(&self) -> bool;
}

/// Checks what `GenerateRequest::check` cannot: the limits that depend on the model.
pub fn check(request: &GenerateRequest, language: &dyn Language, context_length: usize) -> Result<()> {
    let size = language.size();
    let outside = |token: &u32| *token as usize >= size;
    if let Some((token, _)) = request.logit_bias.iter().find(|(token, _)| outside(token)) {
        return Err(Error::invalid("logit_bias", format!("there is no token {token}: the model has {size}")));
    }
    if let Some(token) = request.shown.iter().find(|token| outside(token)) {
        return Err(Error::invalid("shown", format!("there is no token {token}: the model has {size}")));
    }
    match &request.prompt {
        Prompt::Messages(_) if !language.has_chat_template() => {
            Err(Error::invalid("prompt", "the model has no chat template: send `text` or `tokens`"))
        }
        Prompt::Tokens(tokens) => {
            if let Some(token) = tokens.iter().find(|token| outside(token)) {
                return Err(Error::invalid("prompt", format!("there is no token {token}: the model has {size}")));
            }
            let requested = request.max_tokens.map_or(1, |tokens| tokens as usize);
            if tokens.len().saturating_add(requested) > context_length {
                return Err(Error::ContextOverflow { prompt: tokens.len(), requested, limit: context_length });
            }
            Ok(())
        }
        Prompt::Messages(_) | Prompt::Text(_) => Ok(()),
    }
}
