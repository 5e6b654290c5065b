//! Words recur in text; their tokens are copied from where they were encoded before.

use std::ops::Range;

use super::strings::hash;

/// Where recent words of one text are in its output. Direct-mapped: words that collide replace each other, so no choice
/// of words makes a look-up slow.
pub struct Recent<'t> {
    slots: Vec<(&'t [u8], Range<usize>)>,
}

impl<'t> Recent<'t> {
    /// For a text of `length` bytes.
    pub fn new(length: usize) -> Self {
        let slots = (length / 16).next_power_of_two().clamp(8, 1 << 14);
        Recent { slots: vec![(&[], 0..0); slots] }
    }

    pub fn slot(&self, word: &[u8]) -> usize {
        hash(word) as usize & (self.slots.len() - 1)
    }

    /// Appends the tokens of `word`, which is not empty, if it is known.
    pub fn repeat(&self, slot: usize, word: &[u8], out: &mut Vec<u32>) -> bool {
        let (known, range) = &self.slots[slot];
        let found = *known == word;
        if found {
            out.extend_from_within(range.clone());
        }
        found
    }

    pub fn put(&mut self, slot: usize, word: &'t [u8], range: Range<usize>) {
        self.slots[slot] = (word, range);
    }
}
