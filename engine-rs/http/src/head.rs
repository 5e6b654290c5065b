//! A head that is still arriving, of a request or of a response: its lines, its fields, and what
//! they say of the message.
use std::ops::Range;

use crate::error::{Code, HttpError};
use crate::fields::{self, Field, Fields};
use crate::framing::Facts;
use crate::lines::{Lines, TooLong};

/// More than any client sends (Apache takes 100), few enough for look-ups by walking.
const MAX_FIELDS: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    lines: Lines,
    list: Vec<Field>,
    facts: Facts,
}

impl HeadReader {
    /// The place of the next whole line, without its CRLF.
    pub(crate) fn next_line(
        &mut self,
        head: &[u8],
        limit: usize,
        too_long: impl Fn() -> HttpError,
    ) -> Result<Option<Range<usize>>, HttpError> {
        match self.lines.next(head, limit) {
            Ok(Some(line)) => without_cr(head, line).map(Some),
            Ok(None) => Ok(None),
            Err(TooLong) => Err(too_long()),
        }
    }

    /// Reads the field lines that have arrived; true once the empty line after them has.
    pub(crate) fn read_fields(&mut self, head: &[u8], limit: usize) -> Result<bool, HttpError> {
        while let Some(line) = self.next_line(head, limit, || HttpError::head_too_large(limit))? {
            if line.is_empty() {
                return Ok(true);
            }
            self.add(head, fields::read_line(head, line)?)?;
        }
        Ok(false)
    }

    fn add(&mut self, head: &[u8], field: Field) -> Result<(), HttpError> {
        if self.list.len() == MAX_FIELDS {
            let message = format!("the message has more than {MAX_FIELDS} header fields");
            return Err(HttpError::new(Code::HeadTooLarge, message));
        }
        if self.list.capacity() == 0 {
            self.list.reserve_exact(16);
        }
        self.list.push(field);
        self.facts.note(head, field)
    }

    /// The fields and facts of a head that has been read to its end; the reader is ready for the
    /// next one.
    pub(crate) fn finish(&mut self, head: &[u8]) -> (Fields, Facts) {
        let done = std::mem::take(self);
        (Fields { raw: head[..done.lines.taken()].to_vec(), list: done.list }, done.facts)
    }
}

// RFC 9112 2.2 lets a recipient take a bare LF as the end of a line; doing so is how two recipients
// come to disagree on where a head ends.
fn without_cr(head: &[u8], line: Range<usize>) -> Result<Range<usize>, HttpError> {
    match head[line.clone()].last() {
        Some(b'\r') => Ok(line.start..line.end - 1),
        _ => Err(HttpError::field("a line of the head ends in LF without CR")),
    }
}
