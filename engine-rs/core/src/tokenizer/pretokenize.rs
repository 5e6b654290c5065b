//! Splits text into the words that byte-level BPE merges within. Each model family has its own pattern, published as a
//! regular expression; here each pattern is a scanner by hand, so no regex engine runs on requests. A scanner must
//! split exactly where its expression would: one character off, and the model sees tokens it was never trained on.

use super::classes::{Class, Classes, LETTER, LOWER, MARK, NUMBER, PUNCTUATION, SPACE, UPPER};

/// One rule for where words end. The expressions are those of the models' own `tokenizer.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
    /// `letters` is what counts as `\p{L}`: with marks or without.
    Words { digits: usize, letters: Class },
    /// Like `Words`, but a word is split before an upper-case letter that follows a lower-case one, contractions end
    /// the word before them, if at all, and `/` joins the line ends after punctuation.
    Cased { digits: usize, contractions: bool },
    /// `\p{N}`, each on its own.
    Digits,
    /// `\p{N}+`
    Numbers,
    /// `[0-9][0-9][0-9]`
    AsciiTriples,
    /// `[\p{P}$+<=>^~|]+`, and with `backtick` also the backtick.
    Punctuation { backtick: bool },
}

impl Rule {
    /// The length of the first word of `text`, which is not empty.
    fn first(self, text: &str) -> usize {
        let scan = Scan { text, classes: Classes::get() };
        let length = match self {
            Rule::Gpt2 => scan.gpt2(),
            Rule::Words { digits, letters } => scan.words(digits, letters),
            Rule::Cased { digits, contractions } => scan.cased(digits, contractions),
            Rule::Digits => scan.isolated(1, |_, class| class & NUMBER != 0),
            Rule::Numbers => scan.isolated(usize::MAX, |_, class| class & NUMBER != 0),
            Rule::AsciiTriples => scan.triples(),
            Rule::Punctuation { backtick } => scan.isolated(usize::MAX, |character, class| {
                class & PUNCTUATION != 0 || "$+<=>^~|".contains(character) || (backtick && character == '`')
            }),
        };
        length.max(1)
    }
}

/// Calls `word` for each word of `text`: split by the first rule, the parts split by the second, and so on.
pub fn split<'t>(rules: &[Rule], text: &'t str, word: &mut impl FnMut(&'t str)) {
    let Some((rule, rest)) = rules.split_first() else {
        return word(text);
    };
    let mut text = text;
    while !text.is_empty() {
        let (first, remaining) = text.split_at(rule.first(text));
        if rest.is_empty() {
            word(first)
        } else {
            split(rest, first, word)
        }
        text = remaining;
    }
}

/// A character of the text, where it ends and its classes.
#[derive(Clone, Copy)]
struct Here {
    character: char,
    end: usize,
    class: Class,
}

struct Scan<'t> {
    text: &'t str,
    classes: &'static Classes,
}

impl Scan<'_> {
    fn at(&self, start: usize) -> Option<Here> {
        let byte = *self.text.as_bytes().get(start)?;
        let character = if byte < 0x80 { char::from(byte) } else { self.text[start..].chars().next()? };
        Some(Here { character, end: start + character.len_utf8(), class: self.classes.of(character) })
    }

    /// The end of the longest run from `start` of characters that `belongs` accepts.
    fn run(&self, start: usize, belongs: impl Fn(Here) -> bool) -> usize {
        let mut end = start;
        while let Some(here) = self.at(end).filter(|here| belongs(*here)) {
            end = here.end;
        }
        end
    }

    fn run_of(&self, start: usize, class: Class) -> usize {
        self.run(start, |here| here.class & class != 0)
    }

    fn line_ends(&self, start: usize, slash: bool) -> usize {
        self.run(start, |here| matches!(here.character, '\r' | '\n') || (slash && here.character == '/'))
    }

    /// A match is its own word, up to `most` characters long; what lies between matches is one word.
    fn isolated(&self, most: usize, matches: impl Fn(char, Class) -> bool) -> usize {
        let matches = |here: Here| matches(here.character, here.class);
        let mut end = 0;
        for _ in 0..most {
            match self.at(end).filter(|here| matches(*here)) {
                Some(here) => end = here.end,
                None => break,
            }
        }
        if end > 0 { end } else { self.run(0, |here| !matches(here)) }
    }

    fn triples(&self) -> usize {
        let bytes = self.text.as_bytes();
        let found = bytes.windows(3).position(|window| window.iter().all(u8::is_ascii_digit));
        match found {
            Some(0) => 3,
            Some(start) => start,
            None => bytes.len(),
        }
    }

    fn gpt2(&self) -> usize {
        if let Some(end) = self.contraction(0, false) {
            return end;
        }
        let start = usize::from(self.text.starts_with(' '));
        match self.at(start) {
            Some(here) if here.class & LETTER != 0 => self.run_of(start, LETTER),
            Some(here) if here.class & NUMBER != 0 => self.run_of(start, NUMBER),
            Some(here) if here.class & SPACE == 0 => {
                self.run(start, |here| here.class & (SPACE | LETTER | NUMBER) == 0)
            }
            _ => self.blanks(),
        }
    }

    fn words(&self, digits: usize, letters: Class) -> usize {
        let Some(first) = self.at(0) else { return 0 };
        if let Some(end) = self.contraction(0, true) {
            return end;
        }
        let after = self.at(first.end).map_or(0, |here| here.class);
        let prefix = first.class & (LETTER | NUMBER) == 0 && !matches!(first.character, '\r' | '\n');
        if first.class & letters != 0 || (prefix && after & letters != 0) {
            return self.run_of(first.end, letters);
        }
        self.rest(first, digits, letters, false)
    }

    /// The alternatives after letters that the newer patterns share: digits, punctuation, blanks.
    fn rest(&self, first: Here, digits: usize, letters: Class, slash: bool) -> usize {
        if first.class & NUMBER != 0 {
            return self.isolated(digits, |_, class| class & NUMBER != 0);
        }
        let start = usize::from(first.character == ' ');
        let end = self.run(start, |here| here.class & (SPACE | NUMBER | letters) == 0);
        if end > start {
            return self.line_ends(end, slash);
        }
        let blanks = &self.text[..self.run_of(0, SPACE)];
        blanks.rfind(['\r', '\n']).map_or_else(|| self.blanks(), |last| last + 1)
    }

    /// `\s+(?!\S)|\s+`: a run of blanks leaves its last one to the word that follows.
    fn blanks(&self) -> usize {
        let end = self.run_of(0, SPACE);
        if end == self.text.len() {
            return end;
        }
        let last = self.text[..end].char_indices().next_back().map_or(0, |(last, _)| last);
        if last == 0 { end } else { last }
    }

    /// The end of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at `start`. Without regard to case, the long s (U+017F)
    /// is an s, as in the regex engines of the original tokenizers.
    fn contraction(&self, start: usize, any_case: bool) -> Option<usize> {
        let mut rest = self.text[start..].strip_prefix('\'')?.chars();
        let mut letter = || {
            let letter = rest.next()?;
            Some(match letter {
                'ſ' if any_case => 's',
                _ if any_case => letter.to_ascii_lowercase(),
                _ => letter,
            })
        };
        let length = match (letter()?, letter()) {
            ('s' | 't' | 'm' | 'd', _) => 1,
            ('r' | 'v', Some('e')) | ('l', Some('l')) => 2,
            _ => return None,
        };
        let characters = self.text[start..].char_indices();
        Some(characters.map(|(offset, _)| start + offset).nth(length + 1).unwrap_or(self.text.len()))
    }
}

/// The case-aware words of `Rule::Cased`, with U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]` and
/// D = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`: `[^\r\n\p{L}\p{N}]?U*D+` or else `[^\r\n\p{L}\p{N}]?U+D*`.
impl Scan<'_> {
    fn cased(&self, digits: usize, contractions: bool) -> usize {
        let Some(first) = self.at(0) else { return 0 };
        let prefix = first.class & (LETTER | NUMBER) == 0 && !matches!(first.character, '\r' | '\n');
        let starts = [prefix.then_some(first.end), Some(0)];
        let starts = || starts.into_iter().flatten();
        let word = starts()
            .find_map(|start| self.ends_lower(start))
            .or_else(|| starts().find_map(|start| self.starts_upper(start)));
        match word {
            Some(end) if contractions => self.contraction(end, true).unwrap_or(end),
            Some(end) => end,
            None => self.rest(first, digits, LETTER, true),
        }
    }

    fn begins(here: Here) -> bool {
        here.class & (LETTER | MARK) != 0 && here.class & LOWER == 0
    }

    fn continues(here: Here) -> bool {
        here.class & (LETTER | MARK) != 0 && here.class & UPPER == 0
    }

    /// `U*D+`. When no D follows the longest U*, it gives back characters until the next one is a D.
    fn ends_lower(&self, start: usize) -> Option<usize> {
        let upper = self.run(start, Self::begins);
        let end = self.run(upper, Self::continues);
        if end > upper {
            return Some(end);
        }
        let given_back = self.text[start..upper].char_indices().rev().map(|(offset, _)| start + offset);
        given_back.filter_map(|position| self.at(position)).find(|here| Self::continues(*here)).map(|here| here.end)
    }

    /// `U+D*`
    fn starts_upper(&self, start: usize) -> Option<usize> {
        let upper = self.run(start, Self::begins);
        (upper > start).then(|| self.run(upper, Self::continues))
    }
}

#[cfg(test)]
mod tests;
