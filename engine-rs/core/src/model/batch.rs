//! A ragged batch laid out as rows: one row per token, each sequence's rows together.

use std::collections::HashSet;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::executor::{BLOCK, BlockId, Chunk, Want};
use crate::kv::blocks_for;

/// The rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub rows: Range<usize>,
    /// Position of the first row.
    pub start: usize,
    /// Those that cover positions up to `end`.
    pub blocks: Vec<BlockId>,
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
    /// does not have, `Internal` for blocks that do not cover their chunk, or that two chunks write.
    pub fn new(chunks: &[Chunk<'_>], context: usize, vocab: usize) -> Result<Batch> {
        let (mut batch, mut written) = (Batch::default(), HashSet::new());
        for chunk in chunks.iter().filter(|chunk| !chunk.tokens.is_empty()) {
            batch.push(chunk, context, vocab)?;
            let blocks = batch.spans.last().map_or(&[][..], |span| &span.blocks[span.start / BLOCK..]);
            if let Some(block) = blocks.iter().find(|block| !written.insert(**block)) {
                return Err(Error::Internal(format!("block {block} is written twice in a batch")));
            }
        }
        Ok(batch)
    }

    fn push(&mut self, chunk: &Chunk<'_>, context: usize, vocab: usize) -> Result<()> {
        let Chunk { start, tokens, want, blocks } = *chunk;
        if start.saturating_add(tokens.len()) > context {
            return Err(Error::ContextOverflow { prompt: start, requested: tokens.len(), limit: context });
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= vocab) {
            let reason = format!("token {token} is not in the vocabulary of {vocab}");
            return Err(Error::InvalidRequest { field: "tokens".to_owned(), reason });
        }
        let Some(blocks) = blocks.get(..blocks_for(start + tokens.len())) else {
            let (end, have) = (start + tokens.len(), blocks.len());
            return Err(Error::Internal(format!("{have} blocks do not cover {end} positions")));
        };
        let rows = self.tokens.len()..self.tokens.len() + tokens.len();
        let wanted = match want {
            Want::Nothing => rows.end..rows.end,
            Want::Last => rows.end - 1..rows.end,
            Want::All => rows.clone(),
        };
        self.wanted.extend(wanted.map(|row| row as u32));
        self.tokens.extend(tokens);
        self.positions.extend(start..start + tokens.len());
        self.spans.push(Span { rows, start, blocks: blocks.to_vec() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk<'a>(blocks: &'a [BlockId], start: usize, tokens: &'a [u32], want: Want) -> Chunk<'a> {
        Chunk { start, tokens, want, blocks }
    }

    #[test]
    fn rows_follow_the_chunks() {
        let chunks = [
            chunk(&[3], 4, &[7], Want::Last),
            chunk(&[1, 9], 0, &[1, 2, 3], Want::All),
            chunk(&[], 0, &[], Want::Last),
            chunk(&[2, 4], 31, &[5, 6], Want::Nothing),
        ];
        let batch = Batch::new(&chunks, 40, 10).unwrap();
        assert_eq!(batch.tokens, [7, 1, 2, 3, 5, 6]);
        assert_eq!(batch.positions, [4, 0, 1, 2, 31, 32]);
        assert_eq!(batch.wanted, [0, 1, 2, 3]);
        assert_eq!(batch.spans[1], Span { rows: 1..4, start: 0, blocks: vec![1] });
        assert_eq!((batch.spans[1].end(), batch.spans[1].position_of(2)), (3, 1));
        assert_eq!(batch.spans[2].blocks, [2, 4]);
    }

    #[test]
    fn impossible_batches_are_refused() {
        let cases = [
            (
                vec![chunk(&[1, 2], 36, &[1, 2, 3], Want::Last)],
                "36 prompt tokens and 3 to generate exceed the context of 38 tokens",
            ),
            (vec![chunk(&[1], usize::MAX, &[1], Want::Last)], "exceed the context of 38 tokens"),
            (vec![chunk(&[1], 0, &[10], Want::Last)], "`tokens`: token 10 is not in the vocabulary of 10"),
            (vec![chunk(&[1], 31, &[1, 1], Want::Last)], "1 blocks do not cover 33 positions"),
            (
                vec![chunk(&[1], 0, &[1], Want::Last), chunk(&[1], 1, &[1], Want::Last)],
                "block 1 is written twice in a batch",
            ),
        ];
        for (chunks, expected) in cases {
            let error = Batch::new(&chunks, 38, 10).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn blocks_before_a_chunk_may_be_shared() {
        let chunks = [chunk(&[1, 2], 32, &[1], Want::Last), chunk(&[1, 3], 33, &[1], Want::Last)];
        assert_eq!(Batch::new(&chunks, 38, 10).unwrap().spans.len(), 2);
    }
}
