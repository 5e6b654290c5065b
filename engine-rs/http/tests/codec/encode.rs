//! Heads as we write them: what is left out, what is refused, and that our own parsers read them back.
use quiver_http::{EncodeError, RequestEncoder, RequestParser, ResponseEncoder, ResponseParser, chunk_frame};

use crate::cases::LIMITS;

type Fields = [(&'static str, &'static str)];

fn request(method: &str, target: &str, length: Option<usize>, fields: &Fields) -> Result<String, EncodeError> {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let head = RequestEncoder { method, target, length }.head(fields)?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn response(encoder: ResponseEncoder, fields: &Fields) -> Result<String, EncodeError> {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Ok(String::from_utf8_lossy(&encoder.head(fields)?).into_owned())
}

const PLAIN: ResponseEncoder = ResponseEncoder { status: 200, length: Some(2), close: false, http10: false };

#[test]
fn request_heads() {
    let hop_by_hop: &Fields = &[
        ("host", "a"),
        ("Content-Length", "9"),
        ("TRANSFER-ENCODING", "chunked"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
    ];
    let cases: [(Option<usize>, &Fields, &str); 5] = [
        (None, &[("host", "a")], "host: a\r\n"),
        (Some(0), &[("host", "a")], "host: a\r\ncontent-length: 0\r\n"),
        (Some(120), &[("host", "a"), ("X-b", "")], "host: a\r\nX-b: \r\ncontent-length: 120\r\n"),
        (None, &[("host", "a"), ("Connection", "X-b, host"), ("x-b", "1"), ("x-c", "2")], "host: a\r\nx-c: 2\r\n"),
        (Some(1), hop_by_hop, "host: a\r\ncontent-length: 1\r\n"),
    ];
    for (length, fields, want) in cases {
        assert_eq!(request("POST", "/v1?a=b", length, fields), Ok(format!("POST /v1?a=b HTTP/1.1\r\n{want}\r\n")));
    }
}

#[test]
fn requests_that_cannot_be_written() {
    let name = |name: &str| EncodeError::Name(name.to_owned());
    let value = |name: &str| EncodeError::Value(name.to_owned());
    let cases: [(&str, &str, &Fields, EncodeError); 15] = [
        ("", "/", &[("host", "a")], EncodeError::Method),
        ("GET /\r\n", "/", &[("host", "a")], EncodeError::Method),
        ("GET", "", &[("host", "a")], EncodeError::Target),
        ("GET", "a", &[("host", "a")], EncodeError::Target),
        ("GET", "/ HTTP/1.1\r\n", &[("host", "a")], EncodeError::Target),
        ("GET", "/#a", &[("host", "a")], EncodeError::Target),
        ("GET", "/", &[], EncodeError::Host),
        ("GET", "/", &[("host", "a"), ("Host", "a")], EncodeError::Host),
        ("GET", "/", &[("host", "a"), ("", "b")], name("")),
        ("GET", "/", &[("host", "a"), ("b c", "d")], name("b c")),
        ("GET", "/", &[("host", "a"), ("b\r\nc", "d")], name("b\r\nc")),
        ("GET", "/", &[("host", "a"), ("b", "c\r\nd: e")], value("b")),
        ("GET", "/", &[("host", "a"), ("b", "c\0")], value("b")),
        ("GET", "/", &[("host", "a"), ("b", "c\n")], value("b")),
        ("GET", "/", &[("host", "a"), ("b", " c")], value("b")),
    ];
    for (method, target, fields, want) in cases {
        assert_eq!(request(method, target, None, fields), Err(want), "{method} {target} {fields:?}");
    }
}

#[test]
fn response_heads() {
    let cases: [(ResponseEncoder, &str); 10] = [
        (PLAIN, "200 OK\r\ncontent-length: 2\r\n"),
        (ResponseEncoder { close: true, ..PLAIN }, "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n"),
        (ResponseEncoder { length: None, ..PLAIN }, "200 OK\r\ntransfer-encoding: chunked\r\n"),
        (ResponseEncoder { status: 204, ..PLAIN }, "204 No Content\r\n"),
        (ResponseEncoder { status: 304, length: None, ..PLAIN }, "304 Not Modified\r\n"),
        (ResponseEncoder { status: 100, length: None, ..PLAIN }, "100 Continue\r\n"),
        (ResponseEncoder { status: 299, ..PLAIN }, "299 \r\ncontent-length: 2\r\n"),
        (ResponseEncoder { http10: true, ..PLAIN }, "200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n"),
        (ResponseEncoder { http10: true, length: None, ..PLAIN }, "200 OK\r\nconnection: close\r\n"),
        (ResponseEncoder { http10: true, status: 204, ..PLAIN }, "204 No Content\r\nconnection: keep-alive\r\n"),
    ];
    for (encoder, want) in cases {
        let head = response(encoder, &[("Transfer-Encoding", "gzip"), ("content-length", "9"), ("upgrade", "x")]);
        assert_eq!(head, Ok(format!("HTTP/1.1 {want}\r\n")), "{encoder:?}");
    }
}

#[test]
fn responses_that_cannot_be_written() {
    assert_eq!(response(ResponseEncoder { status: 99, ..PLAIN }, &[]), Err(EncodeError::Status));
    assert_eq!(response(ResponseEncoder { status: 600, ..PLAIN }, &[]), Err(EncodeError::Status));
    assert_eq!(response(PLAIN, &[("a", "b\rc")]), Err(EncodeError::Value("a".to_owned())));
}

#[test]
fn chunks_are_framed() {
    assert_eq!(chunk_frame(b""), (Vec::new(), &b""[..]));
    assert_eq!(chunk_frame(&[0; 1]), (b"1\r\n".to_vec(), &b"\r\n"[..]));
    assert_eq!(chunk_frame(&[0; 26]), (b"1a\r\n".to_vec(), &b"\r\n"[..]));
}

#[test]
fn our_parsers_read_what_we_write() {
    let mut parser = RequestParser::new(LIMITS);
    parser.receive(request("POST", "/a?b", Some(3), &[("host", "a:1"), ("x-y", "z")]).unwrap().as_bytes());
    parser.receive(b"abc");
    let head = parser.head().unwrap().unwrap();
    assert_eq!((head.method(), head.target(), head.fields.get(b"x-y")), ("POST", "/a?b", Some(&b"z"[..])));
    assert_eq!(parser.body(), Ok(Some(&b"abc"[..])));

    let mut parser = ResponseParser::new("POST", 1024);
    parser.receive(response(ResponseEncoder { length: None, ..PLAIN }, &[("x-y", "z")]).unwrap().as_bytes());
    let (before, after) = chunk_frame(b"abc");
    parser.receive(&[&before, &b"abc"[..], after, quiver_http::LAST_CHUNK].concat());
    assert_eq!(parser.head().unwrap().unwrap().fields.get(b"x-y"), Some(&b"z"[..]));
    assert_eq!(parser.body(), Ok(&b"abc"[..]));
    assert!(parser.reusable());
}
