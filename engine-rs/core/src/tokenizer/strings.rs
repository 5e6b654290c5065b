//! Dense storage for a vocabulary: a list of byte strings in one allocation, and an index from string to position.
//! A vocabulary has 30,000 to 260,000 entries; one allocation each would cost more than the text itself.

/// A list of byte strings, addressed by position.
#[derive(Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Strings {
    pub fn push(&mut self, string: &[u8]) -> u32 {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len() as u32);
        self.ends.len() as u32 - 1
    }

    /// The string at `position`; empty beyond the end.
    pub fn get(&self, position: u32) -> &[u8] {
        let position = position as usize;
        let Some(&end) = self.ends.get(position) else {
            return &[];
        };
        let start = if position == 0 { 0 } else { self.ends[position - 1] };
        &self.bytes[start as usize..end as usize]
    }
}

/// Positions in a `Strings` by content: open addressing, at most half full, so a miss ends after a slot or two
/// whatever the text asked for.
pub struct Index {
    slots: Vec<u32>,
    used: usize,
}

const EMPTY: u32 = u32::MAX;

impl Index {
    pub fn with_capacity(strings: usize) -> Self {
        Index { slots: vec![EMPTY; (strings * 2).next_power_of_two().max(16)], used: 0 }
    }

    pub fn get(&self, strings: &Strings, string: &[u8]) -> Option<u32> {
        let found = self.slots[self.slot(strings, string)];
        (found != EMPTY).then_some(found)
    }

    /// Adds the string at `position`. False, and no change, when an equal string is already indexed.
    pub fn insert(&mut self, strings: &Strings, position: u32) -> bool {
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow(strings);
        }
        let slot = self.slot(strings, strings.get(position));
        let free = self.slots[slot] == EMPTY;
        if free {
            self.slots[slot] = position;
            self.used += 1;
        }
        free
    }

    fn slot(&self, strings: &Strings, string: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(string) as usize & mask;
        while self.slots[slot] != EMPTY && strings.get(self.slots[slot]) != string {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self, strings: &Strings) {
        let old = std::mem::replace(self, Index::with_capacity(self.slots.len()));
        for position in old.slots.into_iter().filter(|&position| position != EMPTY) {
            self.insert(strings, position);
        }
    }
}

/// A fast hash of a short string; not for keys that an attacker may pile up in one table.
pub fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(FACTOR);
        (product as u64) ^ (product >> 64) as u64
    };
    let mut chunks = bytes.chunks_exact(8);
    let mut state = bytes.len() as u64;
    for chunk in &mut chunks {
        state = mix(state, chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    }
    let rest = chunks.remainder().iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    mix(mix(state, rest), FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_string_after_growth() {
        let mut strings = Strings::default();
        let mut index = Index::with_capacity(0);
        for number in 0..1000 {
            let position = strings.push(format!("token {number}").as_bytes());
            assert!(index.insert(&strings, position));
        }
        for number in 0..1000 {
            assert_eq!(index.get(&strings, format!("token {number}").as_bytes()), Some(number));
        }
        assert_eq!(index.get(&strings, b"token 1000"), None);
        assert_eq!(index.get(&strings, b""), None);
    }

    #[test]
    fn keeps_the_first_of_equal_strings() {
        let mut strings = Strings::default();
        let mut index = Index::with_capacity(4);
        let (first, second) = (strings.push(b"same"), strings.push(b"same"));
        assert!(index.insert(&strings, first));
        assert!(!index.insert(&strings, second));
        assert_eq!(index.get(&strings, b"same"), Some(first));
    }

    #[test]
    fn a_position_beyond_the_end_is_empty() {
        let mut strings = Strings::default();
        strings.push(b"");
        strings.push(b"a");
        assert_eq!([strings.get(0), strings.get(1), strings.get(2)], [&b""[..], b"a", b""]);
    }
}
