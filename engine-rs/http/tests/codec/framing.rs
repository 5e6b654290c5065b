//! How long a request is (RFC 9112 6): what two recipients could read differently is refused.
use crate::cases::Want::{Body, More, Refused};
use crate::cases::check;

#[test]
#[rustfmt::skip]
fn content_length() {
    check(&[
        ("rfc9112_6.2 a body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", Body(b"abc")),
        ("rfc9112_6.2 not whole", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", More),
        ("rfc9112_6.2 zero", with!("Content-Length: 0"), Body(b"")),
        ("rfc9112_6.2 leading zeros", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc", Body(b"abc")),
        ("rfc9110_8.6 empty", with!("Content-Length:"), Refused("bad_framing")),
        ("rfc9110_8.6 plus", with!("Content-Length: +3"), Refused("bad_framing")),
        ("rfc9110_8.6 minus", with!("Content-Length: -3"), Refused("bad_framing")),
        ("rfc9110_8.6 hexadecimal", with!("Content-Length: 0x3"), Refused("bad_framing")),
        ("rfc9110_8.6 fraction", with!("Content-Length: 3.0"), Refused("bad_framing")),
        ("rfc9110_8.6 underscore", with!("Content-Length: 1_0"), Refused("bad_framing")),
        ("rfc9110_8.6 space within", with!("Content-Length: 1 0"), Refused("bad_framing")),
        ("rfc9110_8.6 digits that are not ascii", with!("Content-Length: \u{0663}"), Refused("bad_framing")),
        ("rfc9110_8.6 nineteen digits", with!("Content-Length: 0000000000000000003"), Refused("bad_framing")),
        ("rfc9110_8.6 past 64 bits", with!("Content-Length: 18446744073709551619"), Refused("bad_framing")),
        ("rfc9112_6.3 a list", with!("Content-Length: 3, 3"), Refused("bad_framing")),
        ("rfc9112_6.3 twice the same", with!("Content-Length: 3", "Content-Length: 3"), Refused("bad_framing")),
        ("rfc9112_6.3 two numbers", with!("Content-Length: 3", "content-length: 4"), Refused("bad_framing")),
        ("rfc9112_6.3 underscore form", with!("Content_Length: 3"), Refused("bad_framing")),
        ("rfc9112_6.3 other underscore form", with!("Content-Length_: 3"), Refused("bad_framing")),
        ("rfc9110_15.5.14 over the limit", with!("Content-Length: 1025"), Refused("body_too_large")),
        ("rfc9110_15.5.14 far over the limit", with!("Content-Length: 999999999999999999"), Refused("body_too_large")),
    ]);
}

#[test]
#[rustfmt::skip]
fn transfer_encoding() {
    check(&[
        ("rfc9112_6.1 chunked", chunks!("3\r\nabc\r\n0\r\n\r\n"), Body(b"abc")),
        ("rfc9112_7 case of the coding", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", Body(b"")),
        ("rfc9112_6.1 with content-length", with!("Content-Length: 3", "Transfer-Encoding: chunked"), Refused("bad_framing")),
        ("rfc9112_6.1 before content-length", with!("Transfer-Encoding: chunked", "Content-Length: 3"), Refused("bad_framing")),
        ("rfc9112_6.1 with no length at all", with!("Transfer-Encoding: chunked", "Content-Length: 0"), Refused("bad_framing")),
        ("rfc9112_6.1 on 1.0", b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Refused("bad_framing")),
        ("rfc9112_6.1 twice in fields", with!("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), Refused("bad_framing")),
        ("rfc9112_6.1 twice in a list", with!("Transfer-Encoding: chunked, chunked"), Refused("bad_framing")),
        ("rfc9112_6.1 not last", with!("Transfer-Encoding: chunked, gzip"), Refused("bad_framing")),
        ("rfc9112_6.1 empty", with!("Transfer-Encoding:"), Refused("bad_framing")),
        ("rfc9112_6.1 an empty element", with!("Transfer-Encoding: chunked,"), Refused("bad_framing")),
        ("rfc9112_6.1 with a parameter", with!("Transfer-Encoding: chunked;q=1"), Refused("bad_framing")),
        ("rfc9112_6.1 quoted", with!("Transfer-Encoding: \"chunked\""), Refused("bad_framing")),
        ("rfc9112_6.1 with a control", with!("Transfer-Encoding: \x0bchunked"), Refused("bad_header")),
        ("rfc9112_5 spaces beside", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  chunked  \r\n\r\n0\r\n\r\n", Body(b"")),
        ("rfc9112_6.1 a tab behind", with!("Transfer-Encoding: chunked\t"), Refused("bad_framing")),
        ("rfc9112_6.1 a tab behind a space", with!("Transfer-Encoding: chunked \t"), Refused("bad_framing")),
        ("rfc9112_6.1 a tab before", with!("Transfer-Encoding:\tchunked"), Refused("bad_framing")),
        ("rfc9112_6.1 another coding", with!("Transfer-Encoding: gzip"), Refused("transfer_coding_not_implemented")),
        ("rfc9112_6.1 identity", with!("Transfer-Encoding: identity"), Refused("transfer_coding_not_implemented")),
        ("rfc9112_6.1 another coding first", with!("Transfer-Encoding: gzip, chunked"), Refused("transfer_coding_not_implemented")),
        ("rfc9112_6.1 almost chunked", with!("Transfer-Encoding: xchunked"), Refused("transfer_coding_not_implemented")),
        ("rfc9112_6.1 space before the colon", with!("Transfer-Encoding : chunked"), Refused("bad_header")),
        ("rfc9112_6.1 underscore form", with!("Transfer_Encoding: chunked"), Refused("bad_framing")),
    ]);
}
