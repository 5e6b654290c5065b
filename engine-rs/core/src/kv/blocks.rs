//! Which blocks are in use, by how many, and what those that nobody uses still hold. Pure book-keeping: the memory is
//! `store`'s, and who has which block is the scheduler's.
//!
//! A block that is full is made known by its digest. Whoever begins with the same tokens in the same scope then uses the
//! same block, while others use it and after; nobody writes it again. The last, partly filled block of a sequence that
//! ends stays as a tail, and goes to the next turn of its conversation alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::digest::{Digest, Digests};
use super::{BLOCK, BlockId};

/// Fewer tokens than this are computed faster than they are worth keeping.
const LEAST_TAIL: usize = 4;

#[derive(Debug, Clone, Default)]
struct Block {
    users: u32,
    /// When its last user left; orders those that nobody uses.
    left: u64,
    holds: Holds,
}

#[derive(Debug, Clone, Default)]
enum Holds {
    /// Nothing that can be found again.
    #[default]
    Unknown,
    Full(Digest),
    /// Some tokens after those of the digest.
    Tail(Digest, Vec<u32>),
}

#[derive(Debug, Clone)]
pub struct BlockPool {
    digests: Digests,
    capacity: usize,
    /// The most blocks that nobody uses that stay known.
    kept: usize,
    blocks: Vec<Block>,
    /// Unused and unknown.
    free: BTreeSet<BlockId>,
    /// Unused but known, by the time when they were left.
    idle: BTreeMap<u64, BlockId>,
    known: HashMap<Digest, BlockId>,
    tails: HashMap<Digest, BlockId>,
    used: usize,
    clock: u64,
}

/// What a pool has of a sequence's tokens: the blocks, now used by it, and how many tokens they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub blocks: Vec<BlockId>,
    pub tokens: usize,
}

impl BlockPool {
    /// At most `capacity` blocks, of which at most `kept` that nobody uses keep what they hold.
    pub fn new(capacity: usize, kept: usize) -> BlockPool {
        BlockPool {
            digests: Digests::default(),
            capacity,
            kept,
            blocks: Vec::new(),
            free: BTreeSet::new(),
            idle: BTreeMap::new(),
            known: HashMap::new(),
            tails: HashMap::new(),
            used: 0,
            clock: 0,
        }
    }

    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Blocks that sequences use.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Blocks that nobody uses and that can be found again.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Blocks that could be allocated now.
    pub fn available(&self) -> usize {
        self.capacity.saturating_sub(self.used)
    }

    /// A block for one user, whose content means nothing: the lowest free one, then a new one, then the known one that
    /// was unused for longest. `None` when all are in use.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = match self.free.pop_first() {
            Some(id) => id,
            None if self.blocks.len() < self.capacity => {
                self.blocks.push(Block::default());
                (self.blocks.len() - 1) as BlockId
            }
            None => {
                let (_, id) = self.idle.pop_first()?;
                self.forget(id);
                id
            }
        };
        self.blocks[id as usize].users = 1;
        self.used += 1;
        Some(id)
    }

    /// The longest known beginning of `tokens`, of which at least one is left to compute.
    pub fn find(&mut self, scope: Digest, tokens: &[u32]) -> Found {
        let most = tokens.len().saturating_sub(1);
        let (mut found, mut last) = (Found::default(), scope);
        let digests: Vec<Digest> = self.digests.chain(scope, &tokens[..most]).collect();
        for digest in digests {
            let Some(id) = self.join(digest) else {
                break;
            };
            found.blocks.push(id);
            last = digest;
        }
        found.tokens = found.blocks.len() * BLOCK;
        if let Some((id, common)) = self.take_tail(last, &tokens[found.tokens..most]) {
            found.blocks.push(id);
            found.tokens += common;
        }
        found
    }

    /// One more user for the block of this digest, if it is known.
    pub fn join(&mut self, digest: Digest) -> Option<BlockId> {
        let id = *self.known.get(&digest)?;
        let block = &mut self.blocks[id as usize];
        if block.users == 0 {
            self.idle.remove(&block.left);
            self.used += 1;
        }
        block.users += 1;
        Some(id)
    }

    /// A tail goes to one user, who writes on where the tokens differ: one of which less than half would count stays.
    fn take_tail(&mut self, before: Digest, tokens: &[u32]) -> Option<(BlockId, usize)> {
        let id = *self.tails.get(&before)?;
        let block = &mut self.blocks[id as usize];
        let Holds::Tail(_, tail) = &block.holds else {
            return None;
        };
        let common = tail.iter().zip(tokens).take_while(|(tail, token)| tail == token).count();
        if common < LEAST_TAIL || common * 2 < tail.len() {
            return None;
        }
        self.idle.remove(&block.left);
        (block.users, block.holds) = (1, Holds::Unknown);
        self.used += 1;
        self.tails.remove(&before);
        Some((id, common))
    }

    /// The block is full and computed. Returns the block to use in its place: itself, or one that holds the same and was
    /// known before, which is then used in its stead.
    pub fn complete(&mut self, id: BlockId, digest: Digest) -> BlockId {
        if self.known.get(&digest) == Some(&id) {
            return id;
        }
        if let Some(known) = self.join(digest) {
            self.leave(id);
            return known;
        }
        self.blocks[id as usize].holds = Holds::Full(digest);
        self.known.insert(digest, id);
        id
    }

    /// A sequence ends, or loses its place: its blocks have one user less. `tail` are the tokens that the last block holds
    /// after those of the digest, where it is not full. The ends of sequences are given up before their beginnings.
    pub fn release(&mut self, blocks: &[BlockId], tail: Option<(Digest, &[u32])>) {
        if let Some((before, tokens)) = tail
            && let Some(last) = blocks.last()
            && tokens.len() >= LEAST_TAIL
            && self.blocks[*last as usize].users == 1
        {
            if let Some(older) = self.tails.insert(before, *last) {
                self.give_up(older);
                self.tails.insert(before, *last);
            }
            self.blocks[*last as usize].holds = Holds::Tail(before, tokens.to_vec());
        }
        blocks.iter().rev().for_each(|id| self.leave(*id));
        while self.idle.len() > self.kept {
            if let Some((_, id)) = self.idle.pop_first() {
                self.forget(id);
                self.free.insert(id);
            }
        }
    }

    /// As `release`, but nothing that only these blocks hold is to be found again.
    pub fn discard(&mut self, blocks: &[BlockId]) {
        for id in blocks {
            if self.blocks[*id as usize].users == 1 {
                self.forget(*id);
            }
        }
        self.release(blocks, None);
    }

    /// How many blocks that others use now hold the beginning of `tokens`; they would cost nothing.
    pub fn shared(&self, scope: Digest, tokens: &[u32]) -> usize {
        let most = tokens.len().saturating_sub(1);
        let known = self.digests.chain(scope, &tokens[..most]).map_while(|digest| self.known.get(&digest));
        known.filter(|id| self.blocks[**id as usize].users > 0).count()
    }

    /// Memory ran out: no blocks from `capacity` on. Those in use go when they are released.
    pub fn shrink(&mut self, capacity: usize) {
        self.capacity = capacity;
        let unused = self.idle.values().copied().chain(self.free.iter().copied());
        let beyond: Vec<BlockId> = unused.filter(|id| *id as usize >= capacity).collect();
        for id in beyond {
            self.give_up(id);
            self.free.remove(&id);
        }
    }

    /// Allows `capacity` blocks again.
    pub fn restore(&mut self, capacity: usize) {
        let lost = self.capacity..self.blocks.len().min(capacity);
        self.free.extend(lost.filter(|id| self.blocks[*id].users == 0).map(|id| id as BlockId));
        self.capacity = capacity;
    }

    fn leave(&mut self, id: BlockId) {
        let block = &mut self.blocks[id as usize];
        block.users -= 1;
        if block.users > 0 {
            return;
        }
        self.used -= 1;
        self.clock += 1;
        block.left = self.clock;
        if id as usize >= self.capacity {
            self.forget(id);
        } else if matches!(block.holds, Holds::Unknown) {
            self.free.insert(id);
        } else {
            self.idle.insert(self.clock, id);
        }
    }

    /// An unused block becomes a free one.
    fn give_up(&mut self, id: BlockId) {
        self.idle.remove(&self.blocks[id as usize].left);
        self.forget(id);
        self.free.insert(id);
    }

    fn forget(&mut self, id: BlockId) {
        match std::mem::take(&mut self.blocks[id as usize].holds) {
            Holds::Unknown => {}
            Holds::Full(digest) => drop(self.known.remove(&digest)),
            Holds::Tail(digest, _) => drop(self.tails.remove(&digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(length: usize, last: u32) -> Vec<u32> {
        (0..length as u32 - 1).chain([last]).collect()
    }

    /// Enters a sequence, computes all of it, and returns its blocks and how many tokens it found.
    fn enter(pool: &mut BlockPool, scope: &str, tokens: &[u32]) -> (Vec<BlockId>, usize) {
        let scope = pool.digests().scope(scope);
        let Found { mut blocks, tokens: found } = pool.find(scope, tokens);
        while blocks.len() * BLOCK < tokens.len() {
            blocks.push(pool.allocate().unwrap());
        }
        let digests: Vec<Digest> = pool.digests().chain(scope, tokens).collect();
        for (block, digest) in blocks.iter_mut().zip(digests) {
            *block = pool.complete(*block, digest);
        }
        (blocks, found)
    }

    fn end(pool: &mut BlockPool, scope: &str, tokens: &[u32], blocks: &[BlockId]) {
        let scope = pool.digests().scope(scope);
        let last = pool.digests().chain(scope, tokens).last().unwrap_or(scope);
        pool.release(blocks, Some((last, &tokens[tokens.len() / BLOCK * BLOCK..])));
    }

    #[test]
    fn common_beginnings_are_shared() {
        let mut pool = BlockPool::new(100, 100);
        let first = tokens(100, 1);
        let (own, found) = enter(&mut pool, "a", &first);
        assert_eq!((&own[..], found), (&[0, 1, 2, 3][..], 0));
        // (scope, tokens, found, blocks), all while the first one lives.
        let table: &[(&str, Vec<u32>, usize, &[BlockId])] = &[
            ("a", tokens(100, 2), 96, &[0, 1, 2, 4]),
            ("a", tokens(80, 2), 64, &[0, 1, 4]),
            // All of it is known: its last token is computed again, for its logits.
            ("a", tokens(64, 63), 32, &[0, 1]),
            ("b", tokens(80, 2), 0, &[4, 5, 6]),
            ("a", vec![9; 40], 0, &[4, 5]),
        ];
        for (scope, tokens, expected, blocks) in table {
            let shared = pool.shared(pool.digests().scope(scope), tokens);
            let (got, found) = enter(&mut pool, scope, tokens);
            assert_eq!((&got[..], found, shared), (*blocks, *expected, expected / BLOCK), "{scope} {}", tokens.len());
            assert_eq!(pool.used(), 4 + got.iter().filter(|id| **id > 3).count());
            pool.discard(&got);
        }
        pool.discard(&own);
        assert_eq!((pool.used(), pool.idle(), pool.available()), (0, 0, 100));
    }

    #[test]
    fn a_next_turn_takes_the_tail_along() {
        let mut pool = BlockPool::new(100, 100);
        let first = tokens(50, 49);
        let (blocks, _) = enter(&mut pool, "a", &first);
        end(&mut pool, "a", &first, &blocks);
        assert_eq!((pool.used(), pool.idle()), (0, 2));
        assert_eq!(enter(&mut pool, "b", &tokens(70, 1)).1, 0);
        let (turn, found) = enter(&mut pool, "a", &tokens(70, 1));
        assert_eq!((&turn[..2], found), (&blocks[..], 50));
        // The tail went to one; a second only finds the full blocks, now two of them.
        assert_eq!(enter(&mut pool, "a", &tokens(70, 2)).1, 64);
    }

    #[test]
    fn a_tail_of_little_use_stays() {
        let mut pool = BlockPool::new(100, 100);
        let first = tokens(50, 49);
        let (blocks, _) = enter(&mut pool, "a", &first);
        end(&mut pool, "a", &first, &blocks);
        let other: Vec<u32> = (0..38).chain([9; 9]).collect();
        assert_eq!(enter(&mut pool, "a", &other).1, 32);
        assert_eq!(enter(&mut pool, "a", &tokens(70, 1)).1, 50);
    }

    #[test]
    fn the_longest_unused_goes_first_and_ends_before_beginnings() {
        let mut pool = BlockPool::new(5, 5);
        let (first, second) = (tokens(64, 1), vec![7; 64]);
        let blocks = enter(&mut pool, "a", &first).0;
        pool.release(&blocks, None);
        let blocks = enter(&mut pool, "a", &second).0;
        pool.release(&blocks, None);
        assert_eq!((0..3).map(|_| pool.allocate()).collect::<Vec<_>>(), [Some(4), Some(1), Some(0)]);
        let found = |pool: &mut BlockPool, tokens: &[u32]| pool.find(pool.digests().scope("a"), tokens).tokens;
        assert_eq!(found(&mut pool, &[&first[..], &[1]].concat()), 0);
        assert_eq!(found(&mut pool, &[&second[..], &[1]].concat()), 64);
        assert_eq!((pool.allocate(), pool.available()), (None, 0));
    }

    #[test]
    fn few_stay_known_where_few_are_kept() {
        let mut pool = BlockPool::new(100, 2);
        let first = tokens(128, 1);
        let blocks = enter(&mut pool, "a", &first).0;
        pool.release(&blocks, None);
        assert_eq!((pool.idle(), pool.available()), (2, 100));
        assert_eq!(enter(&mut pool, "a", &first).1, 64);
    }

    #[test]
    fn equal_blocks_become_one() {
        let mut pool = BlockPool::new(100, 100);
        let digest = pool.digests().block(pool.digests().scope("a"), &[3; BLOCK]);
        let [one, two] = [0, 1].map(|_| pool.allocate().unwrap());
        assert_eq!([pool.complete(one, digest), pool.complete(two, digest), pool.complete(one, digest)], [one; 3]);
        assert_eq!(pool.used(), 1);
        pool.release(&[one], None);
        pool.release(&[one], None);
        assert_eq!((pool.used(), pool.idle()), (0, 1));
    }

    #[test]
    fn lost_memory_comes_back_when_allowed() {
        let mut pool = BlockPool::new(4, 4);
        let ids: Vec<BlockId> = (0..4).map(|_| pool.allocate().unwrap()).collect();
        pool.release(&ids[3..], None);
        pool.shrink(2);
        assert_eq!((pool.allocate(), pool.available()), (None, 0));
        pool.release(&ids[..3], None);
        assert_eq!([pool.allocate(), pool.allocate(), pool.allocate()], [Some(0), Some(1), None]);
        pool.restore(4);
        assert_eq!([pool.allocate(), pool.allocate(), pool.allocate()], [Some(2), Some(3), None]);
    }
}
