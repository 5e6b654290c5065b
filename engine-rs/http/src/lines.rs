//! Lines of a head that is still arriving. Remembers how far it has looked, so that one byte at a
//! time costs no more than all at once.
use std::ops::Range;

#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: usize,
    searched: usize,
}

/// A line that ends past its limit, or has no end within it.
#[derive(Debug)]
pub(crate) struct TooLong;

impl Lines {
    /// The place of the next whole line, without its CRLF, which must end within the first `limit`
    /// bytes; `None` when its end has not arrived. `head` is everything received since the head
    /// began.
    pub(crate) fn next(&mut self, head: &[u8], limit: usize) -> Result<Option<Range<usize>>, TooLong> {
        let Some(found) = memchr::memchr(b'\n', &head[self.searched..]) else {
            self.searched = head.len();
            return if head.len() > limit { Err(TooLong) } else { Ok(None) };
        };
        let end = self.searched + found;
        if end >= limit {
            return Err(TooLong);
        }
        let line = self.line..end;
        self.searched = end + 1;
        self.line = end + 1;
        Ok(Some(line))
    }

    /// Bytes of the whole lines so far.
    pub(crate) fn taken(&self) -> usize {
        self.line
    }
}
