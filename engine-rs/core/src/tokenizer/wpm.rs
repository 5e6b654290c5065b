//! WordPiece: text is normalised and cut into words, and each word is covered from the left by the longest tokens there
//! are. In GGUF files a token that starts a word is written with U+2581 before it, and one that continues it without the
//! `##` of the original vocabularies. The rules are those of BERT's own tokenizer: full canonical decomposition, of marks
//! only the non-spacing ones dropped, and a word of more than 100 characters unknown.

use unicode_normalization::char::decompose_canonical;

use super::Parts;
use super::classes::{CharacterSet, Class, Classes, PUNCTUATION, SPACE, SYMBOL};
use super::recent::Recent;
use super::vocabulary::{BLANK, Vocabulary};

/// Words with more characters are not looked up (`max_input_chars_per_word` of every published BERT).
const LONGEST_WORD: usize = 100;

pub struct Wpm {
    lowercase: bool,
    strip_accents: bool,
    /// Bytes of the longest token.
    longest: usize,
    accents: CharacterSet,
    /// Control, format, private use: dropped.
    controls: CharacterSet,
}

impl Wpm {
    pub fn new(parts: &Parts<'_>) -> Self {
        let lowercase = parts.lowercase.unwrap_or(true);
        Wpm {
            lowercase,
            strip_accents: parts.strip_accents.unwrap_or(lowercase),
            longest: parts.tokens.iter().map(|token| token.len()).max().unwrap_or(0),
            accents: CharacterSet::of(r"\p{Mn}"),
            controls: CharacterSet::of(r"[\p{Cc}\p{Cf}\p{Co}&&[^\t\n\r]]"),
        }
    }

    /// Encodes a text between special tokens.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let words = self.words(text);
        let mut recent = Recent::new(words.len());
        for word in words.split(' ').filter(|word| word.len() > BLANK.len_utf8()) {
            let slot = recent.slot(word.as_bytes());
            if !recent.repeat(slot, word.as_bytes(), out) {
                let start = out.len();
                self.cover(vocabulary, word, out);
                recent.put(slot, word.as_bytes(), start..out.len());
            }
        }
    }

    /// A word's longest tokens from the left, or the unknown token where they do not cover all of it.
    fn cover(&self, vocabulary: &Vocabulary, word: &str, out: &mut Vec<u32>) {
        let (before, bytes) = (out.len(), word.as_bytes());
        let mut at = if word.chars().count() > LONGEST_WORD + 1 { None } else { Some(0) };
        while let Some(start) = at.filter(|start| *start < bytes.len()) {
            // The mark of a start is no text: it never stands alone, and never inside a word.
            let least = if start == 0 { BLANK.len_utf8() } else { start };
            let most =
                if start > 0 && word[start..].starts_with(BLANK) { 0 } else { bytes.len().min(start + self.longest) };
            let ends = (least + 1..=most).rev().filter(|end| word.is_char_boundary(*end));
            let found = ends.filter_map(|end| Some((vocabulary.find(&bytes[start..end])?, end))).next();
            at = found.map(|(token, end)| {
                out.push(token);
                end
            });
        }
        if at.is_none() {
            out.truncate(before);
            out.extend(vocabulary.unknown);
        }
    }

    /// The words of `text`, each with the mark of a start before it, separated by blanks.
    fn words(&self, text: &str) -> String {
        let mut words = Words { text: String::with_capacity(text.len() * 2), open: false };
        let classes = Classes::get();
        for character in text.chars() {
            let class = classes.of(character);
            match character {
                'a'..='z' | '0'..='9' => words.push(character),
                'A'..='Z' if self.lowercase => words.push(character.to_ascii_lowercase()),
                '\u{fffd}' => {}
                _ if self.controls.contains(character) => {}
                _ if class & SPACE != 0 => words.end(),
                _ if ideograph(character) => {
                    words.end();
                    self.push(&mut words, character);
                    words.end();
                }
                _ => self.push(&mut words, character),
            }
        }
        words.text
    }

    fn push(&self, words: &mut Words, character: char) {
        if !self.strip_accents || character.is_ascii() {
            return self.push_decomposed(words, character);
        }
        decompose_canonical(character, |part| {
            if !self.accents.contains(part) {
                self.push_decomposed(words, part);
            }
        });
    }

    fn push_decomposed(&self, words: &mut Words, character: char) {
        if alone(character, Classes::get().of(character)) {
            words.end();
            words.push(character);
            words.end();
        } else if self.lowercase {
            character.to_lowercase().for_each(|part| words.push(part));
        } else {
            words.push(character);
        }
    }
}

struct Words {
    text: String,
    open: bool,
}

impl Words {
    fn push(&mut self, character: char) {
        if !self.open {
            self.text.push(BLANK);
            self.open = true;
        }
        self.text.push(character);
    }

    fn end(&mut self) {
        if self.open {
            self.text.push(' ');
            self.open = false;
        }
    }
}

/// Punctuation is a word of its own; of ASCII, symbols count as punctuation.
fn alone(character: char, class: Class) -> bool {
    class & PUNCTUATION != 0 || (character.is_ascii() && class & SYMBOL != 0)
}

/// Characters that are words of their own. The gap from U+2B820 to U+2B91F is a slip in the tokenizer that everyone
/// uses, and so part of what models were trained on.
fn ideograph(character: char) -> bool {
    matches!(character,
        '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests;
