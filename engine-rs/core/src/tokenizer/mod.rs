//! Text to tokens and back, from the vocabulary in a GGUF file. `Tokenizer` is the whole surface; each file below holds
//! one step: `partition` finds special tokens, `pretokenize` splits words, `bpe`, `spm` or `wpm` makes tokens of them,
//! `vocabulary` and `roles` know what a token is, `stream` puts characters together again. Nothing here reads a file or a tensor.

mod alphabet;
mod bpe;
mod classes;
mod families;
mod gguf;
mod partition;
mod pretokenize;
mod recent;
mod roles;
mod spm;
mod stream;
mod strings;
mod vocabulary;
mod wpm;

use std::collections::BTreeMap;

use bpe::Bpe;
use partition::{Fragment, Partition};
use spm::Spm;
pub use stream::Utf8Stream;
use vocabulary::{Kind, Spelling, Vocabulary, unsupported};
use wpm::Wpm;

use crate::error::Result;

/// What a model file says of its tokenizer, not yet checked.
#[derive(Default)]
pub struct Parts<'a> {
    /// `gpt2` (byte-level BPE), `llama` (sentencepiece BPE) or `bert` (WordPiece).
    pub model: &'a str,
    pub pre: Option<&'a str>,
    /// Name of the model.
    pub name: Option<&'a str>,
    pub tokens: Vec<&'a [u8]>,
    /// Empty, or one for each token.
    pub scores: Vec<f32>,
    /// Empty, or the type number of each token.
    pub kinds: Vec<i32>,
    pub merges: Vec<&'a [u8]>,
    /// Tokens with a role: `bos`, `eos`, `eot`, `eom`, `unknown`, `sep`, `fim_pre`...
    pub roles: BTreeMap<&'static str, u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_sep: Option<bool>,
    pub add_space_prefix: Option<bool>,
    pub remove_extra_whitespaces: Option<bool>,
    /// What WordPiece does to text: both when the file does not say.
    pub lowercase: Option<bool>,
    pub strip_accents: Option<bool>,
}

impl Parts<'_> {
    /// The token with a role. Sentencepiece and WordPiece files leave out those that have usual numbers.
    fn role(&self, role: &str) -> Option<u32> {
        let usual = match (self.model, role) {
            ("llama", "unknown") => Some(0),
            ("llama", "bos") => Some(1),
            ("llama", "eos") => Some(2),
            ("bert", "unknown") => Some(100),
            ("bert", "bos") => Some(101),
            ("bert", "sep") => Some(102),
            _ => None,
        };
        let inside = |id: &u32| (*id as usize) < self.tokens.len();
        let named = self.roles.get(role).copied().filter(inside);
        named.or(usual.filter(inside))
    }
}

enum Method {
    Bpe(Box<Bpe>),
    Spm(Box<Spm>),
    Wpm(Box<Wpm>),
}

/// The tokenizer of one model.
pub struct Tokenizer {
    vocabulary: Vocabulary,
    partition: Partition,
    method: Method,
    add_bos: bool,
    add_eos: bool,
    add_sep: bool,
}

impl Tokenizer {
    /// Checks the parts and builds the tables. Errors: `UnsupportedTokenizer` names what cannot be honoured.
    pub fn new(parts: &Parts<'_>) -> Result<Self> {
        let (vocabulary, method, add_bos) = match parts.model {
            "gpt2" => {
                let name = parts.pre.unwrap_or_default();
                let family = families::family(parts.pre)
                    .ok_or_else(|| unsupported(format!("pre-tokenizer `{name}` of model `gpt2`")))?;
                let mut vocabulary = Vocabulary::new(parts, Spelling::Alphabet)?;
                let bpe = Bpe::new(parts, family, &mut vocabulary)?;
                (vocabulary, Method::Bpe(Box::new(bpe)), family.add_bos)
            }
            "llama" => {
                let vocabulary = Vocabulary::new(parts, Spelling::Escaped)?;
                let spm = Spm::new(parts, &vocabulary);
                (vocabulary, Method::Spm(Box::new(spm)), true)
            }
            "bert" => {
                let vocabulary = Vocabulary::new(parts, Spelling::Escaped)?;
                (vocabulary, Method::Wpm(Box::new(Wpm::new(parts))), true)
            }
            other => {
                return Err(unsupported(format!("model `{other}` (supported: gpt2, llama, bert)")));
            }
        };
        let partition = Partition::new(&vocabulary, strip_after(parts, &vocabulary))?;
        Ok(Tokenizer {
            vocabulary,
            partition,
            method,
            add_bos: parts.add_bos.unwrap_or(add_bos),
            add_eos: parts.add_eos.unwrap_or(false),
            add_sep: parts.add_sep.unwrap_or(parts.model == "bert"),
        })
    }

    /// The tokens of `text`. `add_special` adds the begin, end and separator tokens that the model wants; `parse_special` takes
    /// the text of a control token for the token, as a rendered chat template needs and the text of a user does not.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
        tokens.extend(self.bos().filter(|_| add_special && self.add_bos));
        let mut first = true;
        self.partition.split(text, parse_special, |fragment| {
            first = match fragment {
                Fragment::Token(id) => {
                    tokens.push(id);
                    true
                }
                Fragment::Text(text) => {
                    match &self.method {
                        Method::Bpe(bpe) => bpe.encode(&self.vocabulary, text, &mut tokens),
                        Method::Spm(spm) => spm.encode(&self.vocabulary, text, first, &mut tokens),
                        Method::Wpm(wpm) => wpm.encode(&self.vocabulary, text, &mut tokens),
                    }
                    false
                }
            }
        });
        tokens.extend(self.eos().filter(|_| add_special && self.add_eos));
        tokens.extend(self.vocabulary.sep.filter(|_| add_special && self.add_sep));
        tokens
    }

    /// What a token adds to the output: bytes, perhaps half a character. Empty for a token that shows nothing, and for
    /// a number beyond the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.piece_of(id)
    }

    /// What the tokens add to the output together.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|&id| self.token_bytes(id)).copied().collect()
    }

    /// Whether the token ends an answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.vocabulary.is_end(id)
    }

    /// All tokens that end an answer, in order.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.vocabulary.ends()
    }

    /// Whether the token steers the model and shows nothing.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocabulary.kind(id) == Some(Kind::Control)
    }

    /// How many tokens there are.
    pub fn size(&self) -> usize {
        self.vocabulary.size()
    }

    pub fn bos(&self) -> Option<u32> {
        self.vocabulary.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.vocabulary.eos
    }

    /// Whether `encode` starts with the begin token when asked for special tokens.
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos().is_some()
    }
}

/// Phi-3 was trained with blanks after special tokens removed; its files do not say so.
fn strip_after(parts: &Parts<'_>, vocabulary: &Vocabulary) -> Vec<u32> {
    let name = parts.name.unwrap_or_default().to_lowercase();
    if !name.contains("phi-3") && !name.contains("phi3") {
        return Vec::new();
    }
    let kept: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
    let whole = vocabulary.whole.iter();
    whole.filter(|(_, text)| !kept.contains(&&text[..])).map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests;
