//! A ragged batch laid out as rows: one row per token, each sequence's rows together.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::executor::{Chunk, SeqId, Want};

/// The rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub seq: SeqId,
    pub rows: Range<usize>,
    /// Position of the first row.
    pub start: usize,
}

impl Span {
    /// The sequence's length after this batch.
    pub fn end(&self) -> usize {
        self.start + self.rows.len()
    }

    pub fn position_of(&self, row: usize) -> usize {
        self.start + row - self.rows.start
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Batch {
    pub tokens: Vec<u32>,
    pub positions: Vec<usize>,
    pub spans: Vec<Span>,
    /// Rows whose logits are wanted, in order.
    pub wanted: Vec<u32>,
}

impl Batch {
    /// # Errors
    /// `ContextOverflow` where a chunk ends beyond `context`, `InvalidRequest` for a token that the vocabulary of `vocab`
    /// does not have, `Internal` for two chunks of one sequence.
    pub fn new(chunks: &[Chunk<'_>], context: usize, vocab: usize) -> Result<Batch> {
        let mut batch = Batch::default();
        for chunk in chunks.iter().filter(|chunk| !chunk.tokens.is_empty()) {
            batch.push(chunk, context, vocab)?;
        }
        Ok(batch)
    }

    fn push(&mut self, chunk: &Chunk<'_>, context: usize, vocab: usize) -> Result<()> {
        let Chunk { seq, start, tokens, want } = *chunk;
        if self.spans.iter().any(|span| span.seq == seq) {
            return Err(Error::Internal(format!("sequence {seq} appears twice in a batch")));
        }
        if start.saturating_add(tokens.len()) > context {
            return Err(Error::ContextOverflow { prompt: start, requested: tokens.len(), limit: context });
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            let reason = format!("token {token} is not in the vocabulary of {vocab}");
            return Err(Error::InvalidRequest { field: "tokens".to_owned(), reason });
        }
        let rows = self.tokens.len()..self.tokens.len() + tokens.len();
        let wanted = match want {
            Want::Nothing => rows.end..rows.end,
            Want::Last => rows.end - 1..rows.end,
            Want::All => rows.clone(),
        };
        self.wanted.extend(wanted.map(|row| row as u32));
        self.tokens.extend(tokens);
        self.positions.extend(start..start + tokens.len());
        self.spans.push(Span { seq, rows, start });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(seq: SeqId, start: usize, tokens: &[u32], want: Want) -> Chunk<'_> {
        Chunk { seq, start, tokens, want }
    }

    #[test]
    fn rows_follow_the_chunks() {
        let chunks = [
            chunk(1, 4, &[7], Want::Last),
            chunk(2, 0, &[1, 2, 3], Want::All),
            chunk(3, 0, &[], Want::Last),
            chunk(4, 0, &[5, 6], Want::Nothing),
        ];
        let batch = Batch::new(&chunks, 8, 10).unwrap();
        assert_eq!(batch.tokens, [7, 1, 2, 3, 5, 6]);
        assert_eq!(batch.positions, [4, 0, 1, 2, 0, 1]);
        assert_eq!(batch.wanted, [0, 1, 2, 3]);
        assert_eq!(batch.spans[1], Span { seq: 2, rows: 1..4, start: 0 });
        assert_eq!((batch.spans[1].end(), batch.spans[1].position_of(2)), (3, 1));
    }

    #[test]
    fn impossible_batches_are_refused() {
        let cases = [
            (
                vec![chunk(1, 6, &[1, 2, 3], Want::Last)],
                "6 prompt tokens and 3 to generate exceed the context of 8 tokens",
            ),
            (vec![chunk(1, usize::MAX, &[1], Want::Last)], "exceed the context of 8 tokens"),
            (vec![chunk(1, 0, &[10], Want::Last)], "`tokens`: token 10 is not in the vocabulary of 10"),
            (vec![chunk(1, 0, &[1], Want::Last), chunk(1, 1, &[1], Want::Last)], "sequence 1 appears twice in a batch"),
        ];
        for (chunks, expected) in cases {
            let error = Batch::new(&chunks, 8, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
