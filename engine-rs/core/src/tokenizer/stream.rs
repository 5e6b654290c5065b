//! Bytes of tokens in, whole characters out. A token may end in the middle of a character; the stream holds those
//! bytes back, at most three of them, until the rest has come.

const REPLACEMENT: char = '\u{fffd}';

/// A streaming UTF-8 decoder. Invalid bytes become U+FFFD, one for each maximal prefix of a character, as in Python's
/// `errors="replace"` (Unicode 16, section 3.9, "substitution of maximal subparts").
#[derive(Default)]
pub struct Utf8Stream {
    held: Vec<u8>,
}

impl Utf8Stream {
    pub fn new() -> Self {
        Self::default()
    }

    /// The characters that are now complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut at = 0;
        while let Err(error) = std::str::from_utf8(&self.held[at..]) {
            at = self.take(&mut text, at, error.valid_up_to());
            match error.error_len() {
                Some(length) => {
                    text.push(REPLACEMENT);
                    at += length;
                }
                None => {
                    self.held.drain(..at);
                    return text;
                }
            }
        }
        let rest = self.held.len() - at;
        self.take(&mut text, at, rest);
        self.held.clear();
        text
    }

    /// Ends the stream: U+FFFD when it stopped inside a character.
    pub fn finish(&mut self) -> String {
        let unfinished = !self.held.is_empty();
        self.held.clear();
        if unfinished { REPLACEMENT.to_string() } else { String::new() }
    }

    /// Moves `length` valid bytes from `at` to `text`; where they end.
    fn take(&self, text: &mut String, at: usize, length: usize) -> usize {
        text.push_str(&String::from_utf8_lossy(&self.held[at..at + length]));
        at + length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (bytes, text): what Python prints for `bytes.decode(errors="replace")`.
    const CASES: &[(&[u8], &str)] = &[
        (b"", ""),
        (b"plain", "plain"),
        ("é漢😀".as_bytes(), "é漢😀"),
        (b"\xe6\xbc", "\u{fffd}"),
        (b"\xf0\x9f\x98", "\u{fffd}"),
        (b"\xf0\x9f\x98a", "\u{fffd}a"),
        (b"\x80\x80", "\u{fffd}\u{fffd}"),
        (b"a\xffb", "a\u{fffd}b"),
        (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xe2\x82\xe2\x82\xac", "\u{fffd}€"),
        (b"\xf0\x9f\xf0\x9f\x98\x80", "\u{fffd}😀"),
    ];

    #[test]
    fn whole_and_byte_by_byte_agree() {
        for (bytes, text) in CASES {
            for size in 1..=bytes.len().max(1) {
                let mut stream = Utf8Stream::new();
                let mut out: String = bytes.chunks(size).map(|chunk| stream.push(chunk)).collect();
                out += &stream.finish();
                assert_eq!(out, *text, "{bytes:x?} in chunks of {size}");
            }
        }
    }

    #[test]
    fn holds_back_half_a_character() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(b"a\xf0\x9f"), "a");
        assert_eq!(stream.push(b"\x98"), "");
        assert_eq!(stream.push(b"\x80b"), "😀b");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn starts_afresh_after_finish() {
        let mut stream = Utf8Stream::new();
        stream.push(b"\xe2\x82");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.push(b"\xac"), "\u{fffd}");
    }
}
