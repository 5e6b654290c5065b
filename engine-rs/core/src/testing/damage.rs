//! Damages model files so that the damage gets far: most of it goes to the numbers that a reader believes - counts, lengths,
//! kinds, dimensions, offsets, values - which `words` finds, and the rest anywhere.

use std::ops::Range;

use super::Noise;

/// Numbers at which readers stumble.
const HARD: [u64; 20] = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    255,
    256,
    1 << 15,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 31,
    u64::MAX,
];

/// `whole` with one to four things wrong with it; pieces may come from `other`.
pub fn damaged(noise: &mut Noise, whole: &[u8], other: &[u8]) -> Vec<u8> {
    let mut file = whole.to_vec();
    for _ in 0..=noise.below(4) {
        match noise.below(16) {
            0..=8 => change_word(noise, &mut file),
            9..=11 => change_byte(noise, &mut file),
            12 => {
                let length = at(noise, file.len() + 1);
                file.truncate(length);
            }
            13 => {
                let range = piece(noise, &file);
                file.drain(range);
            }
            14 => {
                let (place, range) = (at(noise, file.len() + 1), piece(noise, other));
                file.splice(place..place, other[range].iter().copied());
            }
            _ => {
                let (from, into) = (piece(noise, other), piece(noise, &file));
                file.splice(into, other[from].iter().copied());
            }
        }
    }
    file
}

fn at(noise: &mut Noise, limit: usize) -> usize {
    noise.below(u32::try_from(limit.max(1)).unwrap_or(u32::MAX)) as usize
}

/// Up to 64 bytes, mostly of the header.
fn piece(noise: &mut Noise, file: &[u8]) -> Range<usize> {
    let reach = if noise.below(4) == 0 { file.len() } else { file.len().min(4096) };
    let start = at(noise, reach);
    start..file.len().min(start + noise.below(64) as usize)
}

fn change_byte(noise: &mut Noise, file: &mut [u8]) {
    if let Some(byte) = piece(noise, file).next() {
        file[byte] = noise.bits() as u8;
    }
}

fn change_word(noise: &mut Noise, file: &mut [u8]) {
    let words = words(file);
    if words.is_empty() {
        return;
    }
    let word = words[at(noise, words.len())].clone();
    let mut bytes = [0; 8];
    bytes[..word.len()].copy_from_slice(&file[word.clone()]);
    let old = u64::from_le_bytes(bytes);
    let new = match noise.below(4) {
        0 | 1 => HARD[at(noise, HARD.len())],
        2 => old.wrapping_add(u64::from(noise.below(9))).wrapping_sub(4),
        _ => old.wrapping_mul(1 << noise.below(20)),
    };
    let length = word.len();
    file[word].copy_from_slice(&new.to_le_bytes()[..length]);
}

/// Where the numbers of the header are, as far as it can be read.
fn words(file: &[u8]) -> Vec<Range<usize>> {
    let mut walk = Walk { file, at: 4, words: Vec::new() };
    // What cannot be read any more ends the walk, no error.
    let _ = walk.header();
    walk.words
}

struct Walk<'a> {
    file: &'a [u8],
    at: usize,
    words: Vec<Range<usize>>,
}

impl Walk<'_> {
    fn header(&mut self) -> Option<()> {
        self.word(4)?;
        let (tensors, values) = (self.word(8)?, self.word(8)?);
        for _ in 0..values {
            self.string()?;
            let kind = self.word(4)?;
            self.value(kind)?;
        }
        for _ in 0..tensors {
            self.string()?;
            let dims = self.word(4)?;
            for _ in 0..dims {
                self.word(8)?;
            }
            self.word(4)?;
            self.word(8)?;
        }
        Some(())
    }

    fn value(&mut self, kind: u64) -> Option<()> {
        match kind {
            8 => return self.string(),
            9 => {
                let (kind, count) = (self.word(4)?, self.word(8)?);
                for _ in 0..count {
                    self.value(kind)?;
                }
            }
            _ => {
                self.word(width(kind)?)?;
            }
        }
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let length = usize::try_from(self.word(8)?).ok()?;
        self.at = self.at.checked_add(length).filter(|end| *end <= self.file.len())?;
        Some(())
    }

    fn word(&mut self, width: usize) -> Option<u64> {
        let word = self.at..self.at + width;
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(self.file.get(word.clone())?);
        self.at = word.end;
        self.words.push(word);
        Some(u64::from_le_bytes(bytes))
    }
}

/// Bytes of a number of this kind.
fn width(kind: u64) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
