//! Finds special tokens in text before it is encoded. Tokens of the type "user defined" are always taken; control
//! tokens only where the caller says so, since text of a user must not steer the model.

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::vocabulary::{Kind, Vocabulary, unsupported};
use crate::error::Result;

/// A stretch of text, or a special token found in it.
#[derive(Debug, PartialEq, Eq)]
pub enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// The tokens searched for: one automaton, so a vocabulary with thousands of them costs no more than one with ten.
struct Tokens {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

pub struct Partition {
    user_defined: Tokens,
    all: Tokens,
    /// Blanks after these tokens belong to them.
    strip_after: Vec<u32>,
}

impl Partition {
    pub fn new(vocabulary: &Vocabulary, strip_after: Vec<u32>) -> Result<Self> {
        let user_defined = |id| vocabulary.kind(id) == Some(Kind::UserDefined);
        Ok(Partition {
            user_defined: Tokens::new(vocabulary, user_defined)?,
            all: Tokens::new(vocabulary, |_| true)?,
            strip_after,
        })
    }

    /// Calls `each` with the fragments of `text`, in order. Where tokens overlap, the leftmost wins, then the longest.
    pub fn split<'t>(&self, text: &'t str, parse_special: bool, mut each: impl FnMut(Fragment<'t>)) {
        let tokens = if parse_special { &self.all } else { &self.user_defined };
        let mut at = 0;
        while let Some(found) = tokens.automaton.find(Input::new(text).range(at..)) {
            if found.start() > at {
                each(Fragment::Text(&text[at..found.start()]));
            }
            let id = tokens.ids[found.pattern().as_usize()];
            each(Fragment::Token(id));
            at = found.end();
            if self.strip_after.contains(&id) {
                let blank = |character: char| character.is_ascii_whitespace() || character == '\u{b}';
                at = text.len() - text[at..].trim_start_matches(blank).len();
            }
        }
        if at < text.len() {
            each(Fragment::Text(&text[at..]));
        }
    }
}

impl Tokens {
    fn new(vocabulary: &Vocabulary, wanted: impl Fn(u32) -> bool) -> Result<Self> {
        let (ids, texts): (Vec<u32>, Vec<&str>) = vocabulary
            .whole
            .iter()
            .filter(|(id, _)| wanted(*id))
            // Text is UTF-8, so a token that is not can never occur in it.
            .filter_map(|(id, text)| Some((*id, std::str::from_utf8(text).ok()?)))
            .unzip();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|error| unsupported(format!("{} special tokens: {error}", ids.len())))?;
        Ok(Tokens { automaton, ids })
    }
}
