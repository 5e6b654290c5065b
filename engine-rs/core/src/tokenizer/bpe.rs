//! Byte-level byte-pair encoding: within each word, the pair of neighbours with the lowest rank is merged until no
//! pair has one; of equal ranks the leftmost goes first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::families::Family;
use super::pretokenize;
use super::recent::Recent;
use super::strings::hash;
use super::vocabulary::{Vocabulary, unsupported};
use super::{Parts, alphabet};
use crate::error::Result;

/// Words up to this many bytes are merged by scanning for the lowest rank, which beats a heap on short arrays.
const SHORT: usize = 48;
const NO_RANK: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    symbol: u32,
}

pub struct Bpe {
    family: Family,
    merges: HashMap<u64, Merge, BuildHasherDefault<PairHasher>>,
    /// The symbol of each byte, and its token where it has one.
    symbols: [u32; 256],
    byte_tokens: [Option<u32>; 256],
}

impl Bpe {
    /// Interns the parts of each merge in `vocabulary`; results that are no tokens included.
    pub fn new(parts: &Parts<'_>, family: Family, vocabulary: &mut Vocabulary) -> Result<Self> {
        let byte_tokens = vocabulary.byte_tokens(parts);
        let symbols = std::array::from_fn(|byte| vocabulary.symbol(&[byte as u8]));
        let mut merges = HashMap::with_capacity_and_hasher(parts.merges.len(), BuildHasherDefault::default());
        for (rank, text) in parts.merges.iter().enumerate() {
            let blank = text.iter().skip(1).position(|&byte| byte == b' ').ok_or_else(|| {
                unsupported(format!("merge {rank}, `{}`, is not a pair", String::from_utf8_lossy(text)))
            })?;
            let halves = (alphabet::read(&text[..=blank]), alphabet::read(&text[blank + 2..]));
            // What no bytes spell never occurs in a word.
            let (Some(left), Some(right)) = halves else {
                continue;
            };
            let symbol = vocabulary.symbol(&[&left[..], &right].concat());
            let pair = pair(vocabulary.symbol(&left), vocabulary.symbol(&right));
            merges.entry(pair).or_insert(Merge { rank: rank as u32, symbol });
        }
        Ok(Bpe { family, merges, symbols, byte_tokens })
    }

    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, out: &mut Vec<u32>) {
        let mut words = Words { bpe: self, vocabulary, recent: Recent::new(text.len()), scratch: Scratch::default() };
        pretokenize::split(self.family.rules, text, &mut |word| words.encode(word.as_bytes(), out));
    }

    fn merge_of(&self, left: u32, right: u32) -> Option<Merge> {
        self.merges.get(&pair(left, right)).copied()
    }

    /// The token of a symbol; for a symbol that is none, the tokens of its bytes.
    fn emit(&self, vocabulary: &Vocabulary, symbol: u32, out: &mut Vec<u32>) {
        if (symbol as usize) < vocabulary.size() {
            return out.push(symbol);
        }
        let tokens = vocabulary.key_of(symbol).iter().map(|&byte| self.byte_tokens[usize::from(byte)]);
        out.extend(tokens.filter_map(|token| token.or(vocabulary.unknown)));
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Hashes the pairs of a merge table, whose keys come from the model file and not from requests.
#[derive(Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, key: u64) {
        let product = u128::from(key) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

/// Encodes the words of one text.
struct Words<'a, 't> {
    bpe: &'a Bpe,
    vocabulary: &'a Vocabulary,
    recent: Recent<'t>,
    scratch: Scratch,
}

impl<'t> Words<'_, 't> {
    fn encode(&mut self, word: &'t [u8], out: &mut Vec<u32>) {
        let slot = self.recent.slot(word);
        if !self.recent.repeat(slot, word, out) {
            let start = out.len();
            self.merge(word, out);
            self.recent.put(slot, word, start..out.len());
        }
    }

    fn merge(&mut self, word: &[u8], out: &mut Vec<u32>) {
        let (bpe, vocabulary) = (self.bpe, self.vocabulary);
        let whole = vocabulary.find(word).filter(|&symbol| (symbol as usize) < vocabulary.size());
        if let Some(token) = whole.filter(|_| bpe.family.whole_words || word.len() == 1) {
            return out.push(token);
        }
        let symbols = word.iter().map(|&byte| bpe.symbols[usize::from(byte)]);
        let emit = |symbol| bpe.emit(vocabulary, symbol, out);
        match word.len() {
            ..=SHORT => self.scratch.scan(bpe, symbols, emit),
            _ => self.scratch.heap(bpe, symbols, emit),
        }
    }
}

/// A symbol of a word, and what it would become with its right neighbour.
struct Part {
    symbol: u32,
    next: Merge,
}

const NO_MERGE: Merge = Merge { rank: NO_RANK, symbol: 0 };

/// A symbol of a long word in a doubly linked list; `NO_LINK` at both ends. One that was merged away has no symbol.
struct Link {
    symbol: Option<u32>,
    before: u32,
    after: u32,
}

const NO_LINK: u32 = u32::MAX;

/// A possible merge: its rank and place, the pair it was seen for, and the result.
type Candidate = Reverse<(u32, u32, u64, u32)>;

#[derive(Default)]
struct Scratch {
    parts: Vec<Part>,
    links: Vec<Link>,
    candidates: BinaryHeap<Candidate>,
}

impl Scratch {
    fn scan(&mut self, bpe: &Bpe, symbols: impl Iterator<Item = u32>, emit: impl FnMut(u32)) {
        let parts = &mut self.parts;
        parts.clear();
        parts.extend(symbols.map(|symbol| Part { symbol, next: NO_MERGE }));
        for at in 0..parts.len() {
            rank(bpe, parts, at);
        }
        while let Some(at) = lowest(parts) {
            parts[at].symbol = parts[at].next.symbol;
            parts.remove(at + 1);
            rank(bpe, parts, at);
            if at > 0 {
                rank(bpe, parts, at - 1);
            }
        }
        parts.iter().map(|part| part.symbol).for_each(emit);
    }

    fn heap(&mut self, bpe: &Bpe, symbols: impl Iterator<Item = u32>, emit: impl FnMut(u32)) {
        self.links.clear();
        self.candidates.clear();
        self.links.extend(symbols.zip(0u32..).map(|(symbol, at)| Link {
            symbol: Some(symbol),
            before: at.wrapping_sub(1),
            after: at + 1,
        }));
        if let Some(last) = self.links.last_mut() {
            last.after = NO_LINK;
        }
        for at in 0..self.links.len() as u32 {
            self.consider(bpe, at);
        }
        while let Some(Reverse((_, at, seen, symbol))) = self.candidates.pop() {
            if self.pair_at(at) == Some(seen) {
                self.join(bpe, at, symbol);
            }
        }
        self.links.iter().filter_map(|link| link.symbol).for_each(emit);
    }

    /// The pair that starts at `at` now, if one does.
    fn pair_at(&self, at: u32) -> Option<u64> {
        let left = self.links.get(at as usize)?;
        let right = self.links.get(left.after as usize)?;
        Some(pair(left.symbol?, right.symbol?))
    }

    fn consider(&mut self, bpe: &Bpe, at: u32) {
        if let Some(seen) = self.pair_at(at)
            && let Some(merge) = bpe.merges.get(&seen)
        {
            self.candidates.push(Reverse((merge.rank, at, seen, merge.symbol)));
        }
    }

    fn join(&mut self, bpe: &Bpe, at: u32, symbol: u32) {
        let gone = self.links[at as usize].after as usize;
        let after = self.links[gone].after;
        self.links[gone].symbol = None;
        self.links[at as usize].symbol = Some(symbol);
        self.links[at as usize].after = after;
        if let Some(next) = self.links.get_mut(after as usize) {
            next.before = at;
        }
        self.consider(bpe, self.links[at as usize].before);
        self.consider(bpe, at);
    }
}

fn rank(bpe: &Bpe, parts: &mut [Part], at: usize) {
    let merge = parts.get(at + 1).and_then(|right| bpe.merge_of(parts[at].symbol, right.symbol));
    parts[at].next = merge.unwrap_or(NO_MERGE);
}

fn lowest(parts: &[Part]) -> Option<usize> {
    let lowest = parts.iter().enumerate().min_by_key(|(_, part)| part.next.rank)?;
    (lowest.1.next.rank != NO_RANK).then_some(lowest.0)
}

#[cfg(test)]
mod tests;
