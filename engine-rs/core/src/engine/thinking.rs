//! Counts the tokens of a model's reasoning, by the marks around it. The text itself goes to the client whole.

use crate::grammar::Stage;
use crate::grammar::source::Reasoning;

pub struct Thinking {
    marks: Reasoning,
    stage: Stage,
    /// The end of the text in which a mark may stand.
    text: String,
    tokens: u32,
}

impl Thinking {
    /// `stage`: where the prompt has left the reasoning.
    pub fn new(marks: Reasoning, stage: Stage) -> Self {
        Self { marks, stage, text: String::new(), tokens: 0 }
    }

    /// Tokens up to the closing mark, that of the mark included.
    pub fn tokens(&self) -> u32 {
        if self.stage == Stage::Before { 0 } else { self.tokens }
    }

    /// Takes one token's text.
    pub fn push(&mut self, text: &str) {
        if self.stage == Stage::After {
            return;
        }
        self.text.push_str(text);
        self.tokens += 1;
        if self.stage == Stage::Before {
            let begun = self.text.trim_start();
            if begun.starts_with(&self.marks.open) {
                self.stage = Stage::Inside;
            } else if !self.marks.open.starts_with(begun) {
                (self.stage, self.tokens) = (Stage::After, 0);
            }
        }
        if self.stage == Stage::Inside {
            self.seek_close();
        }
    }

    fn seek_close(&mut self) {
        if self.text.contains(&self.marks.close) {
            self.stage = Stage::After;
        } else {
            let kept = self.text.len().saturating_sub(self.marks.close.len());
            let kept = (0..=kept).rev().find(|place| self.text.is_char_boundary(*place)).unwrap_or(0);
            self.text.drain(..kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_up_to_the_close() {
        let table: &[(Stage, &[&str], u32)] = &[
            (Stage::Before, &["<th", "ink>", "a", "</thi", "nk>b", "c", "</think>"], 5),
            (Stage::Before, &["\n", "<think>", "é€", "é€", "é€"], 5),
            (Stage::Before, &["yes", "<think>", "a", "</think>"], 0),
            (Stage::Before, &["<th"], 0),
            (Stage::Inside, &["a", "b</think>c", "d"], 2),
            (Stage::After, &["<think>", "a", "</think>"], 0),
        ];
        for (stage, pieces, expected) in table {
            let marks = Reasoning { open: "<think>".to_owned(), close: "</think>".to_owned() };
            let mut thinking = Thinking::new(marks, *stage);
            pieces.iter().for_each(|piece| thinking.push(piece));
            assert_eq!(thinking.tokens(), *expected, "{pieces:?}");
        }
    }
}
