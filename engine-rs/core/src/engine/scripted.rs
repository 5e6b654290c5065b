//! A model that follows a script, for tests of the engine: tokens are bytes, 0 ends an answer. It keeps every sequence's
//! tokens and refuses gaps, so that a mistake in the engine's book-keeping shows as an error.

use super::language::Language;
use crate::error::{Error, Result};
use crate::executor::{Chunk, Executor, Logits, SeqId, Want};
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

    fn controls(&self) -> Vec<(u32, &[u8])> {
        vec![(0, b"<end>"), (1, b"[CALL]")]
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

/// Answers a prompt `script|` with the script and then the end; any other with letters that depend on all tokens before.
pub struct Scripted {
    pub sequences: BTreeMap<SeqId, Vec<u32>>,
    pub faults: Faults,
    /// Tokens that all sequences may hold together.
    pub capacity: usize,
    pub context_length: usize,
}

impl Default for Scripted {
    fn default() -> Self {
        Self { sequences: BTreeMap::new(), faults: Box::new(|_| None), capacity: usize::MAX, context_length: 512 }
    }
}

/// The token that follows.
fn next(tokens: &[u32]) -> u32 {
    if let Some(bar) = tokens.iter().position(|token| *token == u32::from(b'|')) {
        let said = tokens.len() - bar - 1;
        return if said < bar { tokens[said] } else { 0 };
    }
    let mixed =
        tokens.iter().fold(7_u64, |sum, token| sum.wrapping_mul(31).wrapping_add(u64::from(*token)) % 1_000_003);
    u32::from(b'a') + (mixed % 26) as u32
}

impl Executor for Scripted {
    fn step(&mut self, batch: &[Chunk<'_>]) -> Result<Logits> {
        let fault = (self.faults)(batch);
        let mut rows = Vec::new();
        for chunk in batch {
            let tokens = self.sequences.entry(chunk.seq).or_default();
            if tokens.len() != chunk.start || chunk.tokens.is_empty() {
                return Err(Error::Internal(format!(
                    "a gap: {} holds {}, not {}",
                    chunk.seq,
                    tokens.len(),
                    chunk.start
                )));
            }
            tokens.extend_from_slice(chunk.tokens);
            if chunk.want == Want::Last {
                let mut row = vec![0.0; VOCABULARY];
                row[next(tokens) as usize] = 9.0;
                rows.append(&mut row);
            }
        }
        let held: usize = self.sequences.values().map(Vec::len).sum();
        match fault {
            Some(Fault::Error) => Err(Error::Internal("told to".to_owned())),
            Some(Fault::Panic) => panic!("told to"),
            Some(Fault::Nan) => Ok(Logits { vocab: VOCABULARY, rows: vec![f32::NAN; rows.len()] }),
            None if held <= self.capacity => Ok(Logits { vocab: VOCABULARY, rows }),
            None => Err(Error::KvFull { needed: held, available: self.capacity }),
        }
    }

    fn release(&mut self, seq: SeqId) {
        self.sequences.remove(&seq);
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        if let Some(tokens) = self.sequences.get_mut(&seq) {
            tokens.truncate(len);
        }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab(&self) -> usize {
        VOCABULARY
    }

    fn live_sequences(&self) -> usize {
        self.sequences.len()
    }
}
