//! Chunked bodies of requests (RFC 9112 7.1).
use quiver_http::{Limits, RequestParser};

use crate::cases::Want::{Body, More, Refused};
use crate::cases::{LIMITS, check};

#[test]
#[rustfmt::skip]
fn chunked_bodies() {
    check(&[
        ("rfc9112_7.1 several", chunks!("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), Body(b"abc")),
        ("rfc9112_7.1 none", chunks!("0\r\n\r\n"), Body(b"")),
        ("rfc9112_7.1 many zeros", chunks!("0003\r\nabc\r\n000\r\n\r\n"), Body(b"abc")),
        ("rfc9112_7.1 hexadecimal of either case", chunks!("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), Body(b"01234567890123456789")),
        ("rfc9112_7.1 sixteen digits", chunks!("0000000000000001\r\na\r\n0\r\n\r\n"), Body(b"a")),
        ("rfc9112_7.1 seventeen digits", chunks!("00000000000000001\r\na\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bytes that look like a frame", chunks!("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), Body(b"0\r\n\r\n")),
        ("rfc9112_7.1 no last chunk", chunks!("1\r\na\r\n"), More),
        ("rfc9112_7.1 no empty line at the end", chunks!("0\r\n"), More),
        ("rfc9112_7.1 no size", chunks!("\r\na\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 an extension and no size", chunks!(";a\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 prefix of hexadecimal", chunks!("0x3\r\nabc\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 minus", chunks!("-1\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 plus", chunks!("+1\r\na\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 underscore", chunks!("1_0\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 space before the size", chunks!(" 1\r\na\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 space after the size", chunks!("1 \r\na\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 tab after the size", chunks!("1\t\r\na\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bare lf after the size", chunks!("1\na\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bare cr after the size", chunks!("1\ra\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bare lf after the data", chunks!("1\r\na\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bare cr after the data", chunks!("1\r\na\rx0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 data longer than its size", chunks!("1\r\nab\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 data shorter than its size", chunks!("4\r\nab\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bare lf at the end", chunks!("0\r\n\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 bare cr at the end", chunks!("0\r\n\rx"), Refused("bad_chunk")),
        ("rfc9112_7.1 size past 63 bits", chunks!("ffffffffffffffff\r\n"), Refused("body_too_large")),
        ("rfc9110_15.5.14 one chunk over the limit", chunks!("401\r\n"), Refused("body_too_large")),
        ("rfc9110_15.5.14 all chunks over the limit", chunks!("1\r\na\r\n400\r\n"), Refused("body_too_large")),
    ]);
}

#[test]
#[rustfmt::skip]
fn chunk_extensions() {
    check(&[
        ("rfc9112_7.1.1 name and value", chunks!("1;a=b\r\nx\r\n0;c\r\n\r\n"), Body(b"x")),
        ("rfc9112_7.1.1 quoted", chunks!("1;a=\"b; c\"\r\nx\r\n0\r\n\r\n"), Body(b"x")),
        ("rfc9112_7.1.1 several", chunks!("1;a;b=c;d=\"\";e\r\nx\r\n0\r\n\r\n"), Body(b"x")),
        ("rfc9110_5.6.4 escapes", chunks!("1;a=\"\\\"\\\\;\"\r\nx\r\n0\r\n\r\n"), Body(b"x")),
        ("rfc9112_7.1.1 no name", chunks!("1;\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 no value", chunks!("1;a=\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 white space", chunks!("1; a\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 white space at the end", chunks!("1;a \r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 an end within quotes", chunks!("1;a=\"b\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 bytes after quotes", chunks!("1;a=\"b\"c\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 control within quotes", chunks!("1;a=\"\x01\"\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 bare lf", chunks!("1;a\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 bare cr", chunks!("1;a\rb\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 nul", chunks!("1;\0\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 tab", chunks!("1;\t\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 delete", chunks!("1;\x7f\r\nx\r\n0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.1 bare lf in the last", chunks!("0;a\n\r\n"), Refused("bad_chunk")),
    ]);
}

#[test]
#[rustfmt::skip]
fn trailers_are_read_and_dropped() {
    check(&[
        ("rfc9112_7.1.2 one", chunks!("1\r\nx\r\n0\r\nA: b\r\n\r\n"), Body(b"x")),
        ("rfc9112_7.1.2 several", chunks!("0\r\nA: b\r\nC:d\r\nE:\r\n\r\n"), Body(b"")),
        ("rfc9110_6.5.1 a length", chunks!("0\r\nContent-Length: 5\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9110_6.5.1 a coding", chunks!("0\r\nA: b\r\ntransfer_encoding: chunked\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9110_6.5.1 a host", chunks!("0\r\nHost: b\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1.2 not whole", chunks!("0\r\nA: b\r\n"), More),
        ("rfc9112_5.1 no name", chunks!("0\r\n: b\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_5.1 no colon", chunks!("0\r\nA\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_5.1 space before the colon", chunks!("0\r\nA : b\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_5.2 fold", chunks!("0\r\nA: b\r\n c\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_2.2 bare lf", chunks!("0\r\nA: b\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_2.2 bare cr", chunks!("0\r\nA: b\rc\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9110_5.5 nul", chunks!("0\r\nA: \0\r\n\r\n"), Refused("bad_chunk")),
        ("rfc9112_7.1 a next request in its place", chunks!("0\r\nGET / HTTP/1.1\r\n\r\n"), Refused("bad_chunk")),
    ]);
}

#[test]
fn long_bodies_in_small_chunks_are_decoded_in_place() {
    let mut parser = RequestParser::new(Limits { body: 1 << 20, ..LIMITS });
    parser.receive(chunks!(""));
    parser.head().unwrap();
    let want: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    for piece in want.chunks(7) {
        parser.receive(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
        assert_eq!(parser.body(), Ok(None));
    }
    assert!(parser.buffered() < want.len() + 16 * 1024, "frames are thrown away as they come");
    parser.receive(b"0\r\n\r\n");
    assert_eq!(parser.body(), Ok(Some(&want[..])));
}
