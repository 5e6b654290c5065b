//! A model that follows a script, for tests of the engine: tokens are bytes, 0 ends an answer. What it says depends on all
//! that it finds through a chunk's blocks, so that a mistake in the engine's book-keeping shows as a wrong token.

use super::language::Language;
use crate::error::{Error, Result};
use crate::executor::{BLOCK, BlockId, Chunk, Executor, Logits, Want};
use crate::request::{GenerateRequest, Prompt};
use std::collections::BTreeMap;

pub const VOCABULARY: usize = 256;

/// Tokens are bytes. The text "panic" panics.
pub struct Letters;

impl Language for Letters {
    fn read(&self, request: &GenerateRequest) -> Result<Vec<u32>> {
        match &request.prompt {
            Prompt::Text(text) if text == "panic" => panic!("told to"),
            Prompt::Text(text) => Ok(text.bytes().map(u32::from).collect()),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
            Prompt::Messages(_) => Err(Error::Template("none".to_owned())),
        }
    }

    fn bytes(&self, token: u32) -> &[u8] {
        const BYTES: [u8; VOCABULARY] = {
            let mut bytes = [0; VOCABULARY];
            let mut at = 0;
            while at < VOCABULARY {
                bytes[at] = at as u8;
                at += 1;
            }
            bytes
        };
        let at = token as usize;
        if at == 0 { &[] } else { &BYTES[at..=at] }
    }

    fn ends(&self, token: u32) -> bool {
        token == 0
    }

    fn size(&self) -> usize {
        VOCABULARY
    }

    fn has_chat_template(&self) -> bool {
        false
    }
}

/// What goes wrong in a step.
pub enum Fault {
    Error,
    Panic,
    Nan,
}

pub type Faults = Box<dyn FnMut(&[Chunk<'_>]) -> Option<Fault> + Send>;

/// What a block's place holds: its token, and a digest of all tokens up to it and of their positions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    token: u32,
    digest: u64,
}

/// Answers a prompt `script|` with the script and then the end, one with `~` mostly with `abcde` over and over, any other
/// with letters that depend on all tokens before. Where a block does not hold what it should, it answers otherwise.
pub struct Scripted {
    pub blocks: BTreeMap<BlockId, [Slot; BLOCK]>,
    pub faults: Faults,
    /// Blocks that there is memory for.
    pub memory: usize,
    pub context_length: usize,
}

impl Default for Scripted {
    fn default() -> Self {
        Self { blocks: BTreeMap::new(), faults: Box::new(|_| None), memory: usize::MAX, context_length: 512 }
    }
}

impl Scripted {
    fn reserve(&mut self, blocks: &[BlockId]) -> Result<()> {
        for block in blocks {
            if !self.blocks.contains_key(block) && self.blocks.len() >= self.memory {
                return Err(Error::OutOfMemory { what: "a block".to_owned(), bytes: self.block_bytes() });
            }
            self.blocks.entry(*block).or_insert([Slot::default(); BLOCK]);
        }
        Ok(())
    }

    fn slots(&self, blocks: &[BlockId], length: usize) -> Vec<Slot> {
        let blocks = blocks.iter().filter_map(|block| self.blocks.get(block));
        blocks.flatten().take(length).copied().collect()
    }

    /// Writes a chunk; the rows of logits that it wants.
    fn compute(&mut self, chunk: &Chunk<'_>) -> Result<Vec<Vec<f32>>> {
        let mut before = self.slots(chunk.blocks, chunk.start);
        if before.len() != chunk.start || chunk.tokens.is_empty() {
            return Err(Error::Internal(format!("{} positions before {}", before.len(), chunk.start)));
        }
        let mut rows = Vec::new();
        for (at, token) in chunk.tokens.iter().enumerate() {
            let position = before.len();
            let slot = Slot { token: *token, digest: digest(before.last(), *token, position) };
            let block = chunk.blocks.get(position / BLOCK).and_then(|block| self.blocks.get_mut(block));
            let block = block.ok_or_else(|| Error::Internal(format!("no block for position {position}")))?;
            block[position % BLOCK] = slot;
            before.push(slot);
            let last = at + 1 == chunk.tokens.len();
            if chunk.want == Want::All || (last && chunk.want == Want::Last) {
                rows.push(logits(&before));
            }
        }
        Ok(rows)
    }
}

fn mix(sum: u64, value: u64) -> u64 {
    (sum ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

fn digest(before: Option<&Slot>, token: u32, position: usize) -> u64 {
    mix(mix(before.map_or(7, |slot| slot.digest), u64::from(token)), position as u64)
}

/// Whether every slot belongs to those before it.
fn intact(slots: &[Slot]) -> bool {
    let expected = |at: usize| digest(slots[..at].last(), slots[at].token, at);
    (0..slots.len()).all(|at| slots[at].digest == expected(at))
}

/// What follows.
fn logits(slots: &[Slot]) -> Vec<f32> {
    let mut row = vec![0.0; VOCABULARY];
    let mixed = slots.iter().fold(7_u64, |sum, slot| mix(sum, slot.digest));
    if !intact(slots) {
        row[usize::from(b'Z')] = 99.0;
    } else if let Some(bar) = slots.iter().position(|slot| slot.token == u32::from(b'|')) {
        let said = slots.len() - bar - 1;
        let token = if said < bar { slots[said].token } else { 0 };
        row[token as usize] = 9.0;
    } else if slots.iter().any(|slot| slot.token == u32::from(b'~')) {
        row[usize::from(b'a') + slots.len() % 5] = 9.0;
        // At a temperature now and then another.
        row[usize::from(b'k') + mixed as usize % 5] = 7.0;
    } else {
        let letters = row[usize::from(b'a')..=usize::from(b'z')].iter_mut();
        letters.enumerate().for_each(|(at, value)| *value = (mix(mixed, at as u64) % 4096) as f32 / 512.0);
    }
    row
}

impl Executor for Scripted {
    fn step(&mut self, batch: &[Chunk<'_>]) -> Result<Logits> {
        let fault = (self.faults)(batch);
        let mut rows = Vec::new();
        for chunk in batch {
            self.reserve(chunk.blocks)?;
        }
        for chunk in batch {
            rows.extend(self.compute(chunk)?.into_iter().flatten());
        }
        match fault {
            Some(Fault::Error) => Err(Error::Internal("told to".to_owned())),
            Some(Fault::Panic) => panic!("told to"),
            Some(Fault::Nan) => Ok(Logits { vocab: VOCABULARY, rows: vec![f32::NAN; rows.len()] }),
            None => Ok(Logits { vocab: VOCABULARY, rows }),
        }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab(&self) -> usize {
        VOCABULARY
    }

    fn block_bytes(&self) -> usize {
        1024
    }

    fn kv_bytes(&self) -> usize {
        self.blocks.len() * self.block_bytes()
    }
}
