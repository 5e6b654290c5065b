//! The first line of a request, and the host that belongs to it (RFC 9112 3).
use crate::cases::Want::{Body, More, Refused};
use crate::cases::{check, head_of};

#[test]
#[rustfmt::skip]
fn request_line() {
    check(&[
        ("rfc9112_3 a plain line", line!("GET / HTTP/1.1"), Body(b"")),
        ("rfc9112_3 not whole", b"GET / HTTP/1.1\r\nHost: a\r\n", More),
        ("rfc9112_3 two spaces after the method", line!("GET  / HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3 two spaces before the version", line!("GET /  HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3 a tab for a space", line!("GET\t/ HTTP/1.1"), Refused("bad_request_line")),
        ("rfc9112_3 space at the end", line!("GET / HTTP/1.1 "), Refused("bad_request_line")),
        ("rfc9112_3 no version, as in 0.9", line!("GET /"), Refused("bad_request_line")),
        ("rfc9112_3 no target", line!("GET HTTP/1.1"), Refused("bad_request_line")),
        ("rfc9112_3 only a method", line!("GET"), Refused("bad_request_line")),
        ("rfc9112_2.2 an empty line before", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Body(b"")),
        ("rfc9112_2.2 two empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("bad_request_line")),
        ("rfc9112_2.2 bare lf before", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("bad_request_line")),
        ("rfc9112_2.2 bare cr before", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("bad_request_line")),
        ("rfc9112_2.2 space before", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused("bad_request_line")),
        ("rfc9112_2.2 bare lf", b"GET / HTTP/1.1\nHost: a\r\n\r\n", Refused("bad_header")),
        ("rfc9112_2.2 bare cr in the line", b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", Refused("bad_target")),
        ("rfc9112_2.2 two cr", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused("bad_request_line")),
        ("rfc9110_9.1 method is not a token", line!("GE(T / HTTP/1.1"), Refused("bad_request_line")),
        ("rfc9110_9.1 an unknown method", line!("BREW / HTTP/1.1"), Body(b"")),
        ("rfc9112_3 a method beyond all known", line!("AAAAAAAABBBBBBBBCCCCCCCCDDDDDDDDE / HTTP/1.1"), Refused("method_not_implemented")),
        ("rfc9110_9.3.6 connect", line!("CONNECT a:443 HTTP/1.1"), Refused("method_not_implemented")),
        ("rfc9110_9.3.8 trace", line!("TRACE / HTTP/1.1"), Refused("method_not_implemented")),
        ("a tls hello is told at its first byte", b"\x16", Refused("bad_request_line")),
    ]);
}

#[test]
#[rustfmt::skip]
fn version() {
    check(&[
        ("rfc9112_2.3 http/1.0", line!("GET / HTTP/1.0"), Body(b"")),
        ("rfc9112_2.3 http/1.0 without host", b"GET / HTTP/1.0\r\n\r\n", Body(b"")),
        ("rfc9110_15.6.6 http/1.2", line!("GET / HTTP/1.2"), Refused("http_version_not_supported")),
        ("rfc9110_15.6.6 http/2.0", line!("GET / HTTP/2.0"), Refused("http_version_not_supported")),
        ("rfc9110_15.6.6 http/0.9", line!("GET / HTTP/0.9"), Refused("http_version_not_supported")),
        ("rfc9112_2.3 lower case", line!("GET / http/1.1"), Refused("bad_request_line")),
        ("rfc9112_2.3 two digits", line!("GET / HTTP/1.10"), Refused("bad_request_line")),
        ("rfc9112_2.3 no dot", line!("GET / HTTP/11"), Refused("bad_request_line")),
        ("rfc9112_2.3 another protocol", line!("GET / HTTPS/1.1"), Refused("bad_request_line")),
        ("rfc9113_3.4 the preface of http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused("http2_preface")),
        ("rfc9113_3.4 pri with another target", line!("PRI / HTTP/2.0"), Refused("http_version_not_supported")),
    ]);
}

#[test]
#[rustfmt::skip]
fn target() {
    check(&[
        ("rfc9112_3.2.1 path and query", line!("GET /a/%41;b=c:@!?d=e/?f HTTP/1.1"), Body(b"")),
        ("rfc9112_3.2.1 what browsers send", line!("GET /a[1]|b?q={x}|^`\\'% HTTP/1.1"), Body(b"")),
        ("rfc9112_3.2.1 quotes in the query", line!("GET /a?\"b\" HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 no slash", line!("GET a HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 fragment", line!("GET /a#b HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 fragment in the query", line!("GET /a?b#c HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 space", line!("GET /a b HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 control", line!("GET /a\x01 HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 delete", line!("GET /a\x7f HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 nul in the query", line!("GET /a?\0 HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 not ascii", line!("GET /\u{e9} HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 not ascii in the query", line!("GET /?\u{e9} HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.1 backslash", line!("GET /..\\a HTTP/1.1"), Refused("bad_target")),
        ("rfc3986_2.1 an escape that is not whole", line!("GET /%4 HTTP/1.1"), Refused("bad_target")),
        ("rfc3986_2.1 an escape that is not hexadecimal", line!("GET /%zz HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.2 absolute, the same host", line!("GET http://a/b HTTP/1.1"), Body(b"")),
        ("rfc9112_3.2.2 absolute, case of scheme and host", line!("GET HTTPS://A/b HTTP/1.1"), Body(b"")),
        ("rfc9112_3.2.2 absolute without path", line!("GET http://a HTTP/1.1"), Body(b"")),
        ("rfc9112_3.2.2 absolute, another host", line!("GET http://b/ HTTP/1.1"), Refused("bad_host")),
        ("rfc9112_3.2.2 absolute, another port", line!("GET http://a:80/ HTTP/1.1"), Refused("bad_host")),
        ("rfc9112_3.2.2 absolute with user", line!("GET http://u@a/ HTTP/1.1"), Refused("bad_host")),
        ("rfc9112_3.2.2 absolute without host", b"GET http://a/ HTTP/1.0\r\n\r\n", Refused("bad_host")),
        ("rfc9112_3.2.2 another scheme", line!("GET ftp://a/ HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.3 authority", line!("GET a:80 HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.4 asterisk", line!("OPTIONS * HTTP/1.1"), Body(b"")),
        ("rfc9112_3.2.4 asterisk for another method", line!("GET * HTTP/1.1"), Refused("bad_target")),
        ("rfc9112_3.2.4 asterisk and more", line!("OPTIONS *a HTTP/1.1"), Refused("bad_target")),
    ]);
}

#[test]
fn target_is_split() {
    for (line, target, path, query) in [
        ("GET /a/b?c=d?e HTTP/1.1", "/a/b?c=d?e", "/a/b", "c=d?e"),
        ("GET /%2e%2E/ HTTP/1.1", "/%2e%2E/", "/%2e%2E/", ""),
        ("GET /? HTTP/1.1", "/?", "/", ""),
        ("OPTIONS * HTTP/1.1", "*", "*", ""),
        ("GET http://a/b?c HTTP/1.1", "http://a/b?c", "/b", "c"),
        ("GET http://a?c HTTP/1.1", "http://a?c", "/", "c"),
    ] {
        let head = head_of(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!((head.target(), head.path(), head.query()), (target, path, query), "{line}");
    }
}

#[test]
#[rustfmt::skip]
fn host() {
    check(&[
        ("rfc9112_3.2 missing", b"GET / HTTP/1.1\r\n\r\n", Refused("bad_host")),
        ("rfc9112_3.2 two", host!("a\r\nHost: a"), Refused("bad_host")),
        ("rfc9112_3.2 two on 1.0", b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused("bad_host")),
        ("rfc9110_7.2 with port", host!(" a.example:8080"), Body(b"")),
        ("rfc9110_7.2 with an empty port", host!("a:"), Body(b"")),
        ("rfc9110_7.2 no space before", host!("a"), Body(b"")),
        ("rfc9110_7.2 address", host!("127.0.0.1:80"), Body(b"")),
        ("rfc3986_3.2.2 address of version 6", host!("[::1]:80"), Body(b"")),
        ("rfc3986_3.2.2 a bracket that does not close", host!("[::1"), Refused("bad_host")),
        ("rfc3986_3.2.2 no address within brackets", host!("[a]"), Refused("bad_host")),
        ("rfc3986_3.2.2 bytes after the bracket", host!("[::1]a"), Refused("bad_host")),
        ("rfc3986_3.2.2 underscore", host!("a_b"), Body(b"")),
        ("rfc3986_3.2.2 an escape that is not whole", host!("a%4"), Refused("bad_host")),
        ("rfc9110_4.2.1 empty", host!(""), Refused("bad_host")),
        ("rfc9110_4.2.1 only a port", host!(":80"), Refused("bad_host")),
        ("rfc9110_7.2 user", host!("u@a"), Refused("bad_host")),
        ("rfc9110_7.2 a list", host!("a,b"), Refused("bad_host")),
        ("rfc9110_7.2 a path", host!("a/b"), Refused("bad_host")),
        ("rfc9110_7.2 a space", host!("a b"), Refused("bad_host")),
        ("rfc9110_7.2 a port that is no number", host!("a:b"), Refused("bad_host")),
        ("rfc9110_7.2 a port beyond all ports", host!("a:65536"), Refused("bad_host")),
        ("rfc9110_7.2 underscore form", with!("_host: b"), Refused("bad_framing")),
        ("rfc9110_7.2 other underscore form", with!("Host_: b"), Refused("bad_framing")),
    ]);
}
