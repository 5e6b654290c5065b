//! What a full block holds, as one number: its own tokens and, through the digest of the block before it, all tokens of
//! the sequence up to its end. The chain of a scope begins with the scope's name, so that scopes share nothing.
//!
//! 128 bits of two keyed hashes (SipHash) with keys of this process: nobody can construct two sequences of one digest, so
//! equal digests are taken for equal tokens.

use std::hash::{BuildHasher, RandomState};

use super::BLOCK;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u64; 2]);

/// The keys. Digests of two values of this type have nothing in common.
#[derive(Debug, Clone, Default)]
pub struct Digests {
    keys: [RandomState; 2],
}

impl Digests {
    /// Where the chain of a scope begins.
    pub fn scope(&self, name: &str) -> Digest {
        Digest(self.keys.each_ref().map(|key| key.hash_one(name)))
    }

    /// The block of `tokens` that follows what `before` stands for.
    pub fn block(&self, before: Digest, tokens: &[u32; BLOCK]) -> Digest {
        Digest(self.keys.each_ref().map(|key| key.hash_one((before.0, tokens))))
    }

    /// The digests of all full blocks of `tokens`, in order.
    pub fn chain<'a>(&'a self, start: Digest, tokens: &'a [u32]) -> impl Iterator<Item = Digest> + 'a {
        let (blocks, _) = tokens.as_chunks::<BLOCK>();
        blocks.iter().scan(start, |before, block| {
            *before = self.block(*before, block);
            Some(*before)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn digests_follow_all_tokens_before() {
        let digests = Digests::default();
        let chain = |scope: &str, tokens: &[u32]| digests.chain(digests.scope(scope), tokens).collect::<Vec<_>>();
        let tokens: Vec<u32> = (0..100).collect();
        let whole = chain("a", &tokens);
        assert_eq!(whole.len(), 3);
        assert_eq!(chain("a", &tokens[..70]), whole[..2]);
        let mut changed = tokens.clone();
        changed[5] = 7;
        let all: BTreeSet<Digest> = [whole, chain("b", &tokens), chain("a", &changed)].concat().into_iter().collect();
        assert_eq!(all.len(), 9);
        assert!(chain("a", &tokens[..31]).is_empty());
    }
}
