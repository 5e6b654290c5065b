//! Sizes: what is exactly at a limit is taken, one more is refused.
use crate::arrivals::arrivals;
use crate::cases::{Outcome, run};

/// Bytes between which a filler makes up the size that a limit counts.
struct Limit {
    name: &'static str,
    before: &'static str,
    filler: &'static str,
    after: &'static str,
    /// How many fillers are at the limit.
    most: usize,
    code: &'static str,
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[rustfmt::skip]
const LIMITS: [Limit; 5] = [
    Limit { name: "rfc9112_3 line", before: "GET /", filler: "a", after: " HTTP/1.1\r\nHost: a\r\n\r\n", most: 8192 - 16, code: "target_too_long" },
    Limit { name: "rfc6585_5 head", before: "GET / HTTP/1.1\r\nHost: a\r\nA:", filler: "b", after: "\r\n\r\n", most: 16384 - 31, code: "head_too_large" },
    Limit { name: "rfc6585_5 fields", before: "GET / HTTP/1.1\r\nHost: a\r\n", filler: "A:b\r\n", after: "\r\n", most: 127, code: "head_too_large" },
    Limit { name: "rfc9112_7.1.1 one extension", before: "0;", filler: "a", after: "\r\n\r\n", most: 256, code: "bad_chunk" },
    Limit { name: "rfc9112_7.1.2 trailers", before: "0\r\nA:", filler: "b", after: "\r\n\r\n", most: 8192 - 5, code: "bad_chunk" },
];

impl Limit {
    fn bytes(&self, count: usize) -> Vec<u8> {
        let chunked = if self.code == "bad_chunk" { CHUNKED } else { "" };
        [chunked, self.before, &self.filler.repeat(count), self.after].concat().into_bytes()
    }
}

#[test]
fn sizes_are_bounded() {
    for limit in LIMITS {
        for pieces in arrivals(&limit.bytes(limit.most)) {
            assert_eq!(run(&pieces), Outcome::Body(Vec::new(), Vec::new()), "{}", limit.name);
        }
        for pieces in arrivals(&limit.bytes(limit.most + 1)) {
            assert_eq!(run(&pieces), Outcome::Refused(limit.code), "{}", limit.name);
        }
    }
}

#[test]
fn extensions_are_bounded_together() {
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(256)).into_bytes();
    assert_eq!(run(&[CHUNKED.as_bytes(), &chunk.repeat(64)]), Outcome::More);
    assert_eq!(run(&[CHUNKED.as_bytes(), &chunk.repeat(65)]), Outcome::Refused("bad_chunk"));
}

#[test]
fn endless_lines_are_refused_before_they_end() {
    assert_eq!(run(&[&b"A".repeat(8193)]), Outcome::Refused("target_too_long"));
    assert_eq!(run(&[b"GET / HTTP/1.1\r\n", &b"A".repeat(16384)]), Outcome::Refused("head_too_large"));
}
