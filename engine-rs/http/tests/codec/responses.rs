//! Responses: how they are framed, what is refused, and when the connection may be used again.
use quiver_http::{Error, ResponseParser};

use crate::arrivals::{TRAILING, arrivals};
use crate::cases::code;

/// What becomes of the bytes of a case, after which the connection ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// Status, body, and whether the connection could have been used again before it ended.
    Whole(u16, &'static [u8], bool),
    /// A body that only the end of the connection ends.
    UntilEnd(u16, &'static [u8]),
    Malformed,
    Truncated,
}
use Want::{Malformed, Truncated, UntilEnd, Whole};

#[derive(Debug, Default)]
struct Reading {
    status: u16,
    body: Vec<u8>,
}

impl Reading {
    fn step(&mut self, parser: &mut ResponseParser) -> Result<(), Error> {
        if self.status == 0 {
            self.status = parser.head()?.map_or(0, |head| head.status);
        }
        if self.status != 0 {
            self.body.extend_from_slice(parser.body()?);
        }
        Ok(())
    }

    fn read(&mut self, parser: &mut ResponseParser, pieces: &[&[u8]]) -> Result<(), Error> {
        for piece in pieces {
            parser.receive(piece);
            self.step(parser)?;
        }
        Ok(())
    }
}

fn check_case(name: &str, method: &str, pieces: &[&[u8]], want: Want, followed: bool) {
    let name = format!("{name}, {method}, {} pieces", pieces.len());
    let (mut parser, mut reading) = (ResponseParser::new(method, 16 * 1024), Reading::default());
    let pieces: Vec<&[u8]> = pieces.iter().copied().filter(|piece| !piece.is_empty()).collect();
    let result = reading.read(&mut parser, &pieces);
    let before = (parser.complete(), parser.reusable());
    let result = result.and_then(|()| reading.read(&mut parser, &[b"", b""]));
    let read = (result.as_ref().map_err(code).copied(), reading.status, &reading.body[..]);
    match want {
        Whole(status, body, reusable) => {
            assert_eq!((read, before), ((Ok(()), status, body), (true, reusable && !followed)), "{name}");
        }
        UntilEnd(status, body) => assert_eq!((read, before), ((Ok(()), status, body), (false, false)), "{name}"),
        Malformed => assert_eq!(read.0, Err("upstream_malformed"), "{name}"),
        Truncated => assert_eq!(read.0, Err("upstream_truncated"), "{name}"),
    }
    assert_eq!((parser.complete(), parser.reusable()), (read.0.is_ok(), false), "{name}: after the end");
}

fn check(method: &str, table: &[(&str, &[u8], Want)]) {
    for (name, bytes, want) in table {
        for pieces in arrivals(bytes) {
            check_case(name, method, &pieces, *want, false);
        }
        if matches!(want, Truncated | UntilEnd(..)) {
            continue;
        }
        let followed = [bytes, TRAILING].concat();
        for pieces in arrivals(&followed) {
            check_case(name, method, &pieces, *want, true);
        }
    }
}

/// A response with status 200 and these fields.
macro_rules! ok {
    ($($field:literal),*) => { concat!("HTTP/1.1 200 OK\r\n", $($field, "\r\n",)* "\r\n").as_bytes() };
}

/// A response whose body comes as the bytes given.
macro_rules! chunked {
    ($body:literal) => {
        concat!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", $body).as_bytes()
    };
}

#[test]
#[rustfmt::skip]
fn status_line() {
    check("GET", &[
        ("rfc9112_4 a plain line", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Whole(404, b"", true)),
        ("rfc9112_4 no reason", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Whole(200, b"", true)),
        ("rfc9112_4 no space for the reason", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Whole(200, b"", true)),
        ("rfc9112_4 reason with obs-text", b"HTTP/1.1 200 \xff\r\nContent-Length: 0\r\n\r\n", Whole(200, b"", true)),
        ("rfc9112_4 control in the reason", b"HTTP/1.1 200 \x01\r\nContent-Length: 0\r\n\r\n", Malformed),
        ("rfc9112_4 bare cr in the reason", b"HTTP/1.1 200 a\rb\r\nContent-Length: 0\r\n\r\n", Malformed),
        ("rfc9112_4 two digits", b"HTTP/1.1 20 OK\r\n\r\n", Malformed),
        ("rfc9112_4 four digits", b"HTTP/1.1 2000 OK\r\n\r\n", Malformed),
        ("rfc9112_4 no digits", b"HTTP/1.1 2x0 OK\r\n\r\n", Malformed),
        ("rfc9112_4 only a version", b"HTTP/1.1\r\n\r\n", Malformed),
        ("rfc9110_15 below 100", b"HTTP/1.1 099 OK\r\n\r\n", Malformed),
        ("rfc9110_15 above 599", b"HTTP/1.1 600 OK\r\n\r\n", Malformed),
        ("rfc9112_2.3 version 2", b"HTTP/2.0 200 OK\r\n\r\n", Malformed),
        ("rfc9112_2.3 another protocol", b"ICY 200 OK\r\n\r\n", Malformed),
        ("rfc9112_2.2 bare lf", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Malformed),
        ("rfc9112_2.2 an empty line before", b"\r\nHTTP/1.1 200 OK\r\n\r\n", Malformed),
    ]);
}

#[test]
#[rustfmt::skip]
fn lengths() {
    check("POST", &[
        ("rfc9112_6.3 content-length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Whole(200, b"abc", true)),
        ("rfc9112_6.3 chunked", chunked!("3;x\r\nabc\r\n0\r\nT: u\r\n\r\n"), Whole(200, b"abc", true)),
        ("rfc9112_6.3 until the end", b"HTTP/1.1 200 OK\r\n\r\nabc", UntilEnd(200, b"abc")),
        ("rfc9112_6.3 until the end, empty", ok!("Connection: keep-alive"), UntilEnd(200, b"")),
        ("rfc9112_9.3 close", ok!("Connection: close", "Content-Length: 0"), Whole(200, b"", false)),
        ("rfc9112_9.3 1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", Whole(200, b"a", false)),
        ("rfc9112_9.3 1.0 kept", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", Whole(200, b"a", true)),
        ("rfc9112_6.1 both lengths", ok!("Content-Length: 5", "Transfer-Encoding: chunked"), Malformed),
        ("rfc9112_6.1 chunked on 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Malformed),
        ("rfc9112_6.1 another coding", ok!("Transfer-Encoding: gzip, chunked"), Malformed),
        ("rfc9112_6.3 two lengths", ok!("Content-Length: 0", "Content-Length: 0"), Malformed),
        ("rfc9112_6.3 a list of lengths", ok!("Content-Length: 0, 0"), Malformed),
        ("rfc9110_8.6 no number", ok!("Content-Length: x"), Malformed),
        ("rfc9112_5.2 fold", ok!("A: b\r\n c", "Content-Length: 0"), Malformed),
        ("rfc9112_5.1 space before the colon", ok!("A : b", "Content-Length: 0"), Malformed),
        ("rfc9110_5.5 nul", ok!("A: \0", "Content-Length: 0"), Malformed),
        ("rfc9110_5.1 underscore form", ok!("Content_Length: 0"), Malformed),
        ("rfc9112_7.1 a bad chunk size", chunked!("x\r\n"), Malformed),
        ("rfc9112_7.1 bare lf in an extension", chunked!("1;\na\r\n0\r\n\r\n"), Malformed),
        ("rfc9112_7.1 two chunks past 64 bits", chunked!("1\r\na\r\nffffffffffffffff\r\n"), Malformed),
        ("rfc9110_10.1.1 expect means nothing here", ok!("Expect: tea", "Content-Length: 0"), Whole(200, b"", true)),
    ]);
}

#[test]
#[rustfmt::skip]
fn truncation() {
    check("GET", &[
        ("rfc9112_8 nothing", b"", Truncated),
        ("rfc9112_8 within the status line", b"HTTP/1.1 20", Truncated),
        ("rfc9112_8 within the fields", b"HTTP/1.1 200 OK\r\nA: b\r\n", Truncated),
        ("rfc9112_8 after an interim response", b"HTTP/1.1 100 Continue\r\n\r\n", Truncated),
        ("rfc9112_8 before the body", ok!("Content-Length: 1"), Truncated),
        ("rfc9112_8 within the body", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Truncated),
        ("rfc9112_8 before a chunk", ok!("Transfer-Encoding: chunked"), Truncated),
        ("rfc9112_8 within a chunk", chunked!("3\r\nab"), Truncated),
        ("rfc9112_8 before the last chunk", chunked!("1\r\na\r\n"), Truncated),
        ("rfc9112_8 within the last chunk", chunked!("0\r\n"), Truncated),
    ]);
}

#[test]
#[rustfmt::skip]
fn responses_without_body() {
    check("GET", &[
        ("rfc9110_15.3.5 204", b"HTTP/1.1 204 No Content\r\n\r\n", Whole(204, b"", true)),
        ("rfc9110_8.6 204 with zero length", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Whole(204, b"", true)),
        ("rfc9110_8.6 204 with a length", b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", Malformed),
        ("rfc9112_6.1 204 with chunks", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Malformed),
        ("rfc9110_15.4.5 304 with a length", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", Whole(304, b"", true)),
        ("rfc9112_6.3 304 with bytes behind it", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", Whole(304, b"", false)),
    ]);
    check("HEAD", &[
        ("rfc9110_9.3.2 a length", ok!("Content-Length: 3"), Whole(200, b"", true)),
        ("rfc9110_9.3.2 chunks", ok!("Transfer-Encoding: chunked"), Whole(200, b"", true)),
        ("rfc9110_9.3.2 neither", ok!("A: b"), Whole(200, b"", true)),
    ]);
}

#[test]
#[rustfmt::skip]
fn interim_responses() {
    check("POST", &[
        ("rfc9110_15.2.1 100", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", Whole(200, b"a", true)),
        ("rfc8297_2 103 with fields", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Whole(204, b"", true)),
        ("rfc9110_15.2.2 101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Malformed),
        ("rfc9110_8.6 with a length", b"HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\na", Malformed),
        ("rfc9112_6.1 with chunks", b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed),
    ]);
    let eight = [b"HTTP/1.1 100 Continue\r\n\r\n".repeat(8), b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()].concat();
    check_case("eight", "POST", &[&eight], Whole(204, b"", true), false);
    check_case("nine", "POST", &[b"HTTP/1.1 100 Continue\r\n\r\n", &eight], Malformed, false);
}

#[test]
fn heads_are_bounded() {
    let head = |count: usize| format!("HTTP/1.1 204 No Content\r\nA:{}\r\n\r\n", "b".repeat(count));
    let most = 16 * 1024 - head(0).len();
    for (count, want) in [(most, Whole(204, b"", true)), (most + 1, Malformed)] {
        for pieces in arrivals(head(count).as_bytes()) {
            check_case("head", "GET", &pieces, want, false);
        }
    }
    check_case("an endless line", "GET", &[&b"H".repeat(16 * 1024 + 1)], Malformed, false);
}

#[test]
fn head_keeps_reason_and_fields() {
    let mut parser = ResponseParser::new("GET", 1024);
    parser.receive(b"HTTP/1.1 503 Not Now\r\nRetry-After: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = parser.head().unwrap().unwrap();
    assert_eq!((head.status, head.reason()), (503, &b"Not Now"[..]));
    assert_eq!((head.content_length, head.chunked, head.keep_alive), (None, true, true));
    assert_eq!(head.fields.get(b"retry-after"), Some(&b"3"[..]));
}

#[test]
fn bytes_before_the_end_come_before_its_error() {
    let mut parser = ResponseParser::new("GET", 1024);
    parser.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    parser.receive(b"");
    parser.head().unwrap();
    assert_eq!(parser.body(), Ok(&b"abc"[..]));
    assert_eq!(parser.body().as_ref().map_err(code), Err("upstream_truncated"));
    assert_eq!(parser.body().as_ref().map_err(code), Err("upstream_truncated"), "an error is final");
}

#[test]
fn calls_in_the_wrong_order_are_ours() {
    let mut parser = ResponseParser::new("GET", 1024);
    assert!(matches!(parser.body(), Err(Error::Misuse(_))));
    parser.receive(b"HTTP/1.1 204 No Content\r\n\r\n");
    parser.head().unwrap();
    assert!(matches!(parser.head(), Err(Error::Misuse(_))));
}
