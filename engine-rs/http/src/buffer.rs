//! Received bytes that no message has taken yet: a vector with a consumed front. Each byte is
//! copied in once and moved rarely.

/// What an empty buffer may keep, so that an idle connection does not hold the memory of its
/// largest message.
const KEEP: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(crate) fn extend(&mut self, data: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(data);
    }

    /// Gives consumed room back. Moves at most as many bytes as were consumed since the last move,
    /// which keeps the work linear.
    pub(crate) fn compact(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn pending_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len());
    }

    /// The next `count` bytes, consumed.
    pub(crate) fn take(&mut self, count: usize) -> &[u8] {
        let from = self.start;
        self.consume(count);
        &self.bytes[from..self.start]
    }

    /// Cuts the pending bytes `from..to` out.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.bytes.drain(self.start + from..self.start + to);
    }

    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        self.compact();
        let rest = self.bytes.split_off(self.start);
        *self = Buffer::default();
        rest
    }
}
