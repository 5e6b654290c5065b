//! Finished sequences that stay in the executor until their memory is wanted, so that the next turn of a conversation
//! computes only what is new. Decides which to use and which to release; the owner does it.
//!
//! A request finds only sequences of its own scope: how fast an answer begins must not tell one client what another asked.

use crate::scheduler::SeqId;
use std::cmp::Reverse;

/// Fewer tokens than this are computed faster than they are worth keeping.
const LEAST: usize = 16;

#[derive(Debug, Clone)]
struct Entry {
    seat: SeqId,
    scope: String,
    /// Those that the executor holds.
    tokens: Vec<u32>,
}

#[derive(Debug, Clone)]
pub struct Kept {
    /// The one not used for longest comes first.
    entries: Vec<Entry>,
    /// Tokens of all entries together.
    limit: usize,
}

impl Kept {
    pub fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), limit }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a finished sequence in. Returns those that must be released for it, perhaps itself.
    pub fn keep(&mut self, seat: SeqId, scope: String, tokens: Vec<u32>) -> Vec<SeqId> {
        if tokens.len() < LEAST || tokens.len() > self.limit {
            return vec![seat];
        }
        self.entries.push(Entry { seat, scope, tokens });
        let mut sum: usize = self.entries.iter().map(|entry| entry.tokens.len()).sum();
        let mut released = Vec::new();
        while sum > self.limit {
            let oldest = self.entries.remove(0);
            sum -= oldest.tokens.len();
            released.push(oldest.seat);
        }
        released
    }

    /// Hands out the sequence that begins most like `tokens`, and how many of its tokens count; at least one of `tokens`
    /// is left to compute; of equals the shortest. A sequence of which less than half would count stays for its own conversation.
    pub fn take(&mut self, scope: &str, tokens: &[u32]) -> Option<(SeqId, usize)> {
        let own = |(_, entry): &(usize, &Entry)| entry.scope == scope;
        let best = self.entries.iter().enumerate().filter(own);
        let (common, _, at) = best
            .map(|(at, entry)| (common_start(&entry.tokens, tokens), Reverse(entry.tokens.len()), at))
            .filter(|(common, Reverse(length), _)| *common >= LEAST && common * 2 >= *length)
            .max()?;
        Some((self.entries.remove(at).seat, common))
    }

    /// Gives up the one that was not used for longest.
    pub fn give_up(&mut self) -> Option<SeqId> {
        (!self.entries.is_empty()).then(|| self.entries.remove(0).seat)
    }
}

fn common_start(kept: &[u32], wanted: &[u32]) -> usize {
    let most = wanted.len().saturating_sub(1);
    let pairs = kept.iter().zip(&wanted[..most]);
    pairs.take_while(|(kept, wanted)| kept == wanted).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(length: usize, tail: u32) -> Vec<u32> {
        (0..length as u32).chain([tail]).collect()
    }

    fn kept(limit: usize, entries: &[(SeqId, &str, Vec<u32>)]) -> Kept {
        let mut kept = Kept::new(limit);
        for (seat, scope, tokens) in entries {
            kept.keep(*seat, (*scope).to_owned(), tokens.clone());
        }
        kept
    }

    #[test]
    fn longest_common_start_is_taken() {
        let entries = [(1, "a", tokens(20, 900)), (2, "a", tokens(30, 901)), (3, "b", tokens(40, 902))];
        let table = [
            ("a", tokens(40, 7), Some((2, 30))),
            ("a", tokens(25, 7), Some((2, 25))),
            ("b", tokens(50, 7), Some((3, 40))),
            ("c", tokens(50, 7), None),
            ("a", tokens(8, 7), None),
            // All of it is there: the last token is computed again, for its logits.
            ("a", tokens(20, 900), Some((1, 20))),
            ("a", tokens(29, 29), Some((2, 29))),
            // Less than half of the sequence of 41 would count.
            ("b", tokens(20, 7), None),
            ("b", vec![], None),
        ];
        for (scope, wanted, expected) in table {
            let mut kept = kept(1000, &entries);
            let taken = kept.take(scope, &wanted);
            assert_eq!(taken, expected, "{scope}, {} tokens", wanted.len());
            assert_eq!(kept.len(), 3 - usize::from(taken.is_some()));
        }
    }

    #[test]
    fn limit_releases_the_oldest() {
        let mut kept = Kept::new(100);
        let mut keep = |seat, length| kept.keep(seat, String::new(), vec![0; length]);
        assert!(keep(1, 40).is_empty());
        assert!(keep(2, 40).is_empty());
        assert_eq!(keep(3, 30), [1]);
        assert_eq!(keep(4, 5), [4]);
        assert_eq!(keep(5, 101), [5]);
        assert_eq!(keep(6, 100), [2, 3]);
        assert_eq!(kept.give_up(), Some(6));
        assert_eq!(kept.give_up(), None);
    }
}
