//! Sentencepiece BPE: of all neighbours whose joined text is a token, the pair with the highest score is joined first;
//! of equal scores the leftmost. Characters without a token become byte tokens. This is greedy and not the Viterbi
//! search of unigram models, which finds other tokens for some texts.

use std::collections::{BinaryHeap, HashSet};

use super::Parts;
use super::recent::Recent;
use super::vocabulary::{BLANK, Vocabulary};

pub struct Spm {
    /// Scores as integers of the same order, so that a heap can compare them.
    scores: Vec<u32>,
    byte_tokens: [Option<u32>; 256],
    /// Put a blank before text that starts the prompt or follows a special token.
    add_blank: bool,
    /// Drop blanks at both ends of a text and repeated ones inside.
    squeeze: bool,
    /// Characters that stand before a blank inside some token. After any other, a blank starts a new word: no pair can
    /// be joined across, so words can be encoded one by one.
    joined_to_blanks: HashSet<char>,
}

impl Spm {
    pub fn new(parts: &Parts<'_>, vocabulary: &Vocabulary) -> Self {
        let score = |id: usize| parts.scores.get(id).copied().unwrap_or(0.0);
        let texts = (0..parts.tokens.len() as u32).filter_map(|id| std::str::from_utf8(vocabulary.key_of(id)).ok());
        Spm {
            scores: (0..parts.tokens.len()).map(|id| order(score(id))).collect(),
            byte_tokens: vocabulary.byte_tokens(parts),
            add_blank: parts.add_space_prefix.unwrap_or(true),
            squeeze: parts.remove_extra_whitespaces.unwrap_or(false),
            joined_to_blanks: texts.flat_map(before_blanks).collect(),
        }
    }

    /// Encodes a text between special tokens; `first` when it starts the prompt or follows one.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, first: bool, out: &mut Vec<u32>) {
        let text = self.escape(text, first);
        let mut recent = Recent::new(text.len());
        let mut joining = Joining::new(self, vocabulary);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (word, after) = rest.split_at(self.word(rest));
            let slot = recent.slot(word.as_bytes());
            if !recent.repeat(slot, word.as_bytes(), out) {
                let start = out.len();
                joining.run(word);
                self.emit(vocabulary, &joining, out);
                recent.put(slot, word.as_bytes(), start..out.len());
            }
            rest = after;
        }
    }

    /// The length of the first word of `text`.
    fn word(&self, text: &str) -> usize {
        let blanks = text.match_indices(BLANK).filter(|(at, _)| *at > 0);
        let starts = |at: usize| text[..at].chars().next_back().is_some_and(|before| !self.joins_blank(before));
        blanks.map(|(at, _)| at).find(|at| starts(*at)).unwrap_or(text.len())
    }

    fn joins_blank(&self, before: char) -> bool {
        before == BLANK || self.joined_to_blanks.contains(&before)
    }

    fn emit(&self, vocabulary: &Vocabulary, joining: &Joining<'_>, out: &mut Vec<u32>) {
        for symbol in joining.symbols.iter().filter(|symbol| symbol.start < symbol.end) {
            match symbol.token {
                Some(token) => out.push(token),
                None => {
                    let bytes = joining.text[symbol.start as usize..symbol.end as usize].bytes();
                    let tokens = bytes.map(|byte| self.byte_tokens[usize::from(byte)]);
                    out.extend(tokens.filter_map(|token| token.or(vocabulary.unknown)));
                }
            }
        }
    }

    fn escape(&self, text: &str, first: bool) -> String {
        let squeezed: String;
        let text = if self.squeeze {
            squeezed = text.split(' ').filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            &squeezed
        } else {
            text
        };
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + BLANK.len_utf8());
        if self.add_blank && first {
            escaped.push(BLANK);
        }
        for (number, part) in text.split(' ').enumerate() {
            if number > 0 {
                escaped.push(BLANK);
            }
            escaped.push_str(part);
        }
        escaped
    }
}

/// The characters that stand directly before a blank in `text`.
fn before_blanks(text: &str) -> impl Iterator<Item = char> {
    let pairs = text.chars().zip(text.chars().skip(1));
    pairs.filter(|(_, after)| *after == BLANK).map(|(before, _)| before)
}

/// Maps a score to an integer of the same order. Both zeros are one score.
fn order(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// A stretch of the text, its token if it is one, and its neighbours. One that was joined away is empty.
struct Symbol {
    start: u32,
    end: u32,
    token: Option<u32>,
    before: u32,
    after: u32,
}

const NO_SYMBOL: u32 = u32::MAX;

/// Neighbours that can be joined. Ordered by score, then by place, leftmost first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    score: u32,
    place: std::cmp::Reverse<u32>,
    right: u32,
    length: u32,
    token: u32,
}

struct Joining<'a> {
    spm: &'a Spm,
    vocabulary: &'a Vocabulary,
    text: &'a str,
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Candidate>,
}

impl<'a> Joining<'a> {
    fn new(spm: &'a Spm, vocabulary: &'a Vocabulary) -> Self {
        Joining { spm, vocabulary, text: "", symbols: Vec::new(), candidates: BinaryHeap::new() }
    }

    fn run(&mut self, text: &'a str) {
        self.text = text;
        self.symbols.clear();
        for ((start, character), at) in text.char_indices().zip(0u32..) {
            let end = start + character.len_utf8();
            let token = self.vocabulary.find(&text.as_bytes()[start..end]);
            self.symbols.push(Symbol {
                start: start as u32,
                end: end as u32,
                token,
                before: at.wrapping_sub(1),
                after: at + 1,
            });
        }
        if let Some(last) = self.symbols.last_mut() {
            last.after = NO_SYMBOL;
        }
        for left in 0..self.symbols.len() as u32 {
            self.consider(left);
        }
        while let Some(candidate) = self.candidates.pop() {
            let (left, right) = (&self.symbols[candidate.place.0 as usize], &self.symbols[candidate.right as usize]);
            let whole = left.start < left.end && right.start < right.end;
            if whole && right.end - left.start == candidate.length {
                self.join(&candidate);
            }
        }
    }

    /// Notes `left` and its right neighbour when their joined text is a token.
    fn consider(&mut self, left: u32) {
        let Some(symbol) = self.symbols.get(left as usize) else {
            return;
        };
        let Some(next) = self.symbols.get(symbol.after as usize) else {
            return;
        };
        let joined = &self.text.as_bytes()[symbol.start as usize..next.end as usize];
        if let Some(token) = self.vocabulary.find(joined) {
            self.candidates.push(Candidate {
                score: self.spm.scores[token as usize],
                place: std::cmp::Reverse(left),
                right: symbol.after,
                length: next.end - symbol.start,
                token,
            });
        }
    }

    fn join(&mut self, candidate: &Candidate) {
        let right = &mut self.symbols[candidate.right as usize];
        let (end, after) = (right.end, right.after);
        right.start = right.end;
        if let Some(next) = self.symbols.get_mut(after as usize) {
            next.before = candidate.place.0;
        }
        let left = &mut self.symbols[candidate.place.0 as usize];
        (left.end, left.after, left.token) = (end, after, Some(candidate.token));
        let before = left.before;
        self.consider(before);
        self.consider(candidate.place.0);
    }
}

#[cfg(test)]
mod tests;
