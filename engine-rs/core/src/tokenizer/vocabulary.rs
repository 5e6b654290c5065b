//! The tokens of a model: their text, their kind, what each adds to the output, and which of them have a role - begin,
//! end, unknown. What a tokenizer may learn about a token from its text or its metadata is decided here, once, at load.

use std::collections::BTreeSet;

use super::roles;
use super::strings::{Index, Strings};
use super::{Parts, alphabet};
use crate::error::{Error, Result};

/// Escaped blank of sentencepiece: U+2581, "lower one eighth block".
pub const BLANK: char = '\u{2581}';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    /// Stands for text that has no token. Shows nothing.
    Unknown,
    /// Steers the model: `<s>`, `<|im_end|>`. Shows nothing, and plain text never becomes one.
    Control,
    /// Taken from text before anything else, and shown: `<think>`.
    UserDefined,
    /// Reserved or of an unnamed type. Shows nothing.
    Unused,
    /// One byte of text, written `<0x0A>`.
    Byte,
}

impl Kind {
    fn from_type(number: i32) -> Self {
        match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            6 => Kind::Byte,
            _ => Kind::Unused,
        }
    }
}

/// How the text of a token spells bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The printable alphabet of byte-level BPE.
    Alphabet,
    /// UTF-8 with blanks written as U+2581.
    Escaped,
}

pub struct Vocabulary {
    size: usize,
    spelling: Spelling,
    kinds: Vec<Kind>,
    /// What the tokenizer matches: for an alphabet the bytes that the token spells, otherwise its text. Entries from
    /// `size` on are no tokens but intermediate results of merges.
    keys: Strings,
    index: Index,
    /// What each token adds to the output.
    pieces: Strings,
    /// Tokens found in text as a whole, and their text.
    pub whole: Vec<(u32, Vec<u8>)>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub sep: Option<u32>,
    ends: BTreeSet<u32>,
}

impl Vocabulary {
    pub fn new(parts: &Parts<'_>, spelling: Spelling) -> Result<Self> {
        let size = parts.tokens.len();
        check(parts)?;
        let mut kinds: Vec<Kind> = match parts.kinds.is_empty() {
            true => vec![Kind::Normal; size],
            false => parts.kinds[..size].iter().map(|&number| Kind::from_type(number)).collect(),
        };
        let ends = roles::assign(parts, &mut kinds);
        let mut vocabulary = Vocabulary {
            size,
            spelling,
            kinds,
            keys: Strings::default(),
            index: Index::with_capacity(size),
            pieces: Strings::default(),
            whole: Vec::new(),
            bos: parts.role("bos"),
            eos: parts.role("eos"),
            unknown: parts.role("unknown"),
            sep: parts.role("sep"),
            ends,
        };
        for (id, text) in parts.tokens.iter().enumerate() {
            vocabulary.add(id as u32, text)?;
        }
        Ok(vocabulary)
    }

    fn add(&mut self, id: u32, text: &[u8]) -> Result<()> {
        let kind = self.kinds[id as usize];
        let key = self.key(kind, text);
        self.pieces.push(&self.piece(kind, text));
        self.keys.push(key.as_deref().unwrap_or(&[]));
        if key.is_some() && !self.index.insert(&self.keys, id) {
            let text = String::from_utf8_lossy(text);
            return Err(unsupported(format!("token {id} repeats the text `{text}`")));
        }
        if matches!(kind, Kind::Control | Kind::UserDefined | Kind::Unknown) && !text.is_empty() {
            self.whole.push((id, text.to_vec()));
        }
        Ok(())
    }

    /// What plain text must spell to become the token; `None` when no plain text may.
    fn key(&self, kind: Kind, text: &[u8]) -> Option<Vec<u8>> {
        let reachable = !matches!(kind, Kind::Control | Kind::Unknown | Kind::Byte) && !text.is_empty();
        match self.spelling {
            Spelling::Alphabet => alphabet::read(text).filter(|_| reachable),
            Spelling::Escaped => reachable.then(|| text.to_vec()),
        }
    }

    fn piece(&self, kind: Kind, text: &[u8]) -> Vec<u8> {
        match (kind, self.spelling) {
            (Kind::Control | Kind::Unknown | Kind::Unused, _) => Vec::new(),
            (Kind::UserDefined, _) => text.to_vec(),
            (Kind::Byte, _) => byte_token(text).map_or_else(|| text.to_vec(), |byte| vec![byte]),
            (Kind::Normal, Spelling::Alphabet) => alphabet::read(text).unwrap_or_else(|| text.to_vec()),
            (Kind::Normal, Spelling::Escaped) => unescape(text),
        }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn kind(&self, id: u32) -> Option<Kind> {
        self.kinds.get(id as usize).copied()
    }

    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().copied()
    }

    pub fn piece_of(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// The token, or intermediate result, that `key` is.
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.get(&self.keys, key)
    }

    pub fn key_of(&self, symbol: u32) -> &[u8] {
        self.keys.get(symbol)
    }

    /// Like `find`; a string that is no token becomes an intermediate result.
    pub fn symbol(&mut self, key: &[u8]) -> u32 {
        self.find(key).unwrap_or_else(|| {
            let symbol = self.keys.push(key);
            self.index.insert(&self.keys, symbol);
            symbol
        })
    }

    /// The tokens for single bytes, by the byte.
    pub fn byte_tokens(&self, parts: &Parts<'_>) -> [Option<u32>; 256] {
        let mut tokens = std::array::from_fn(|byte| self.find(&[byte as u8]).filter(|&id| (id as usize) < self.size));
        if self.spelling == Spelling::Escaped {
            for (id, text) in parts.tokens.iter().enumerate() {
                if let Some(byte) = byte_token(text) {
                    tokens[usize::from(byte)] = Some(id as u32);
                }
            }
        }
        tokens
    }
}

fn check(parts: &Parts<'_>) -> Result<()> {
    let size = parts.tokens.len();
    if size == 0 || size >= 1 << 24 {
        return Err(unsupported(format!("a vocabulary of {size} tokens")));
    }
    for (what, found) in [("types", parts.kinds.len()), ("scores", parts.scores.len())] {
        if found != 0 && found < size {
            return Err(unsupported(format!("{found} token {what} for {size} tokens")));
        }
    }
    Ok(())
}

pub fn unsupported(what: String) -> Error {
    Error::UnsupportedTokenizer { what }
}

/// The byte that `<0x0A>` names.
fn byte_token(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

fn unescape(text: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(text) {
        Ok(text) => text.replace(BLANK, " ").into_bytes(),
        Err(_) => text.to_vec(),
    }
}
