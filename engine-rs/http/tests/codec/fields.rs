//! Header fields, and what they say of the connection (RFC 9112 5 and 9).
use crate::cases::Want::{Body, Refused};
use crate::cases::{check, head_of};

#[test]
#[rustfmt::skip]
fn fields() {
    check(&[
        ("rfc9112_5 a plain field", with!("X-A: b"), Body(b"")),
        ("rfc9112_5 no value", with!("X-A:"), Body(b"")),
        ("rfc9112_5 white space around the value", with!("X-A: \t b \t "), Body(b"")),
        ("rfc9110_5.5 obs-text", with!("X-A: \u{e9}"), Body(b"")),
        ("rfc9110_5.1 underscore elsewhere", with!("X_A: b"), Body(b"")),
        ("rfc9112_5.1 space before the colon", with!("X-A : b"), Refused("bad_header")),
        ("rfc9112_5.1 tab before the colon", with!("X-A\t: b"), Refused("bad_header")),
        ("rfc9112_5.2 fold with a space", with!("X-A: b\r\n c"), Refused("bad_header")),
        ("rfc9112_5.2 fold with a tab", with!("X-A: b\r\n\tc"), Refused("bad_header")),
        ("rfc9112_2.2 space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused("bad_header")),
        ("rfc9112_2.2 bare lf after a field", with!("X-A: b\nX-C: d"), Refused("bad_header")),
        ("rfc9112_2.2 bare lf for the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", Refused("bad_header")),
        ("rfc9112_2.2 bare cr in a value", with!("X-A: b\rc"), Refused("bad_header")),
        ("rfc9112_2.2 bare cr before the end", with!("X-A: b\r"), Refused("bad_header")),
        ("rfc9112_2.2 bare cr for the empty line", b"GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", Refused("bad_header")),
        ("rfc9110_5.5 nul in a value", with!("X-A: b\0c"), Refused("bad_header")),
        ("rfc9110_5.5 control in a value", with!("X-A: b\x0bc"), Refused("bad_header")),
        ("rfc9110_5.5 delete in a value", with!("X-A: b\x7f"), Refused("bad_header")),
        ("rfc9110_5.1 no name", with!(": b"), Refused("bad_header")),
        ("rfc9110_5.1 no colon", with!("X-A"), Refused("bad_header")),
        ("rfc9110_5.1 name is not a token", with!("X(A): b"), Refused("bad_header")),
        ("rfc9110_5.1 name is not ascii", with!("X\u{e9}: b"), Refused("bad_header")),
        ("rfc9110_5.1 nul in a name", with!("X\0A: b"), Refused("bad_header")),
        ("rfc9110_10.1.1 100-continue", with!("Expect: 100-Continue"), Body(b"")),
        ("rfc9110_10.1.1 another expectation", with!("Expect: 200-ok"), Refused("expectation_failed")),
        ("rfc9110_10.1.1 one of two", with!("Expect: a", "Expect: 100-continue"), Refused("expectation_failed")),
        ("rfc9110_10.1.1 nothing expected on 1.0", b"GET / HTTP/1.0\r\nExpect: a\r\n\r\n", Body(b"")),
    ]);
}

#[test]
fn head_keeps_its_fields() {
    let bytes = b"PUT /x HTTP/1.1\r\nHost: a\r\nX-Two: \t one \r\nx-two:two\r\nEmpty: \r\n\r\n";
    let head = head_of(&[&b"\r\n"[..], bytes].concat());
    let fields: Vec<(&[u8], &[u8])> = vec![(b"Host", b"a"), (b"X-Two", b"one"), (b"x-two", b"two"), (b"Empty", b"")];
    assert_eq!(head.method(), "PUT");
    assert_eq!(head.fields.iter().collect::<Vec<_>>(), fields);
    assert_eq!(head.fields.get(b"X-TWO"), Some(&b"one"[..]));
    assert_eq!(head.fields.get(b"x"), None);
    assert_eq!(head.fields.raw(), bytes);
}

#[test]
fn connection_persistence() {
    for (version, fields, want) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: a, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = head_of(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").as_bytes());
        assert_eq!(head.keep_alive, want, "rfc9112_9.3 {version} {fields}");
    }
}

#[test]
fn flags_follow_the_fields() {
    let flags = |version: &str, fields: &str| {
        let head = head_of(format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").as_bytes());
        (head.http10, head.expect_continue, head.upgrade, head.has_body(), head.content_length)
    };
    assert_eq!(flags("1.1", ""), (false, false, false, false, None));
    assert_eq!(flags("1.1", "Expect: 100-continue\r\nContent-Length: 7\r\n"), (false, true, false, true, Some(7)));
    assert_eq!(flags("1.1", "Upgrade: h2c\r\nContent-Length: 0\r\n"), (false, false, true, false, Some(0)));
    assert_eq!(flags("1.1", "Transfer-Encoding: chunked\r\n"), (false, false, false, true, None));
    assert_eq!(flags("1.0", "Expect: 100-continue\r\nUpgrade: h2c\r\n"), (true, false, false, false, None));
}
