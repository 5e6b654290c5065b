//! The language of a model file: its tokenizer and its chat template.

use super::language::Language;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::request::{GenerateRequest, Prompt};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

pub struct ModelLanguage {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl ModelLanguage {
    pub fn open(gguf: &Gguf) -> Result<Self> {
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let template = ChatTemplate::from_gguf(gguf, &tokenizer)?;
        Ok(Self { tokenizer, template })
    }

    /// The chat template, the one for requests with tools where there are two.
    pub fn template_source(&self) -> Option<&str> {
        self.template.as_ref().map(ChatTemplate::source)
    }

    /// A rendered conversation to tokens. Most templates write the begin token themselves; it is added to the others.
    fn conversation(&self, text: &str) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(text, false, true);
        if let Some(begin) = self.tokenizer.bos()
            && self.tokenizer.adds_bos()
            && tokens.first() != Some(&begin)
        {
            tokens.insert(0, begin);
        }
        tokens
    }
}

impl Language for ModelLanguage {
    fn read(&self, request: &GenerateRequest) -> Result<Vec<u32>> {
        match &request.prompt {
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            Prompt::Text(text) => Ok(self.tokenizer.encode(text, true, false)),
            Prompt::Messages(messages) => {
                let template = self.template.as_ref();
                let template = template.ok_or_else(|| Error::Template("none".to_owned()))?;
                let text = template.render(messages, &request.template_arguments, true)?;
                Ok(self.conversation(&text))
            }
        }
    }

    fn bytes(&self, token: u32) -> &[u8] {
        self.tokenizer.token_bytes(token)
    }

    fn ends(&self, token: u32) -> bool {
        self.tokenizer.is_end(token)
    }

    fn controls(&self) -> Vec<(u32, &[u8])> {
        self.tokenizer.controls().collect()
    }

    fn size(&self) -> usize {
        self.tokenizer.size()
    }

    fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }
}
