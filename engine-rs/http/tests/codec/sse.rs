//! Event streams (WHATWG HTML 9.2): where events end, and what is noticed of them on their way.
use quiver_http::{Code, SseScanner};

use crate::arrivals::arrivals;

/// Bytes; how many of them are held back at the end; events with data; `[DONE]`; usage.
type Case = (&'static str, &'static [u8], usize, u64, bool, Option<&'static [u8]>);

fn check(table: &[Case]) {
    for (name, bytes, held, events, done, usage) in table {
        for pieces in arrivals(bytes) {
            let (mut scanner, mut passed) = (SseScanner::new(1024), Vec::new());
            for piece in &pieces {
                match scanner.feed(piece) {
                    Ok(events) => passed.extend_from_slice(&events),
                    Err(error) => panic!("{name}: {error}"),
                }
            }
            let (want, rest) = bytes.split_at(bytes.len() - held);
            let want = want.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(want);
            let name = format!("{name}, {} pieces", pieces.len());
            assert_eq!((&passed[..], scanner.rest()), (want, rest), "{name}");
            assert_eq!((scanner.events(), scanner.done(), scanner.usage()), (*events, *done, *usage), "{name}");
        }
    }
}

#[test]
#[rustfmt::skip]
fn ends_of_events() {
    check(&[
        ("lf", b"data: a\n\ndata: b\n\n", 0, 2, false, None),
        ("cr", b"data: a\r\rdata: b\r\r", 0, 2, false, None),
        ("crlf", b"data: a\r\n\r\ndata: b\r\n\r\n", 0, 2, false, None),
        ("cr and crlf", b"data: a\r\r\ndata: b\r\r\n", 0, 2, false, None),
        ("lf and crlf", b"data: a\n\r\ndata: b\r\n\n", 0, 2, false, None),
        ("lf and cr", b"data: a\n\rdata: b\n\r", 0, 2, false, None),
        ("cr, then lf, is one end", b"data: a\r\ndata: b\r\n\r\n", 0, 1, false, None),
        ("empty lines more than needed", b"\n\r\n\rdata: a\n\n\n\n", 0, 1, false, None),
        ("no end", b"data: a\n\ndata: b\n", 8, 1, false, None),
        ("no end of the line", b"data: a\n\ndata: b", 7, 1, false, None),
        ("a cr that may become crlf", b"data: a\n\ndata: b\r", 8, 1, false, None),
        ("nothing", b"", 0, 0, false, None),
        ("several lines", b"event: a\nid: 1\ndata: b\ndata: c\n\n", 0, 1, false, None),
        ("a mark at the beginning", b"\xEF\xBB\xBFdata: [DONE]\n\n", 0, 1, true, None),
        ("a mark within", b"data: a\n\n\xEF\xBB\xBFdata: [DONE]\n\n", 0, 1, false, None),
        ("half a mark", b"\xEF\xBBdata: [DONE]\n\n", 0, 0, false, None),
        ("half a mark and no more", b"\xEF\xBB", 2, 0, false, None),
        ("characters of several bytes", "data: \u{e9}\u{1f600}\n\n".as_bytes(), 0, 1, false, None),
        ("nul is a byte like others", b"data: \0\n\n", 0, 1, false, None),
    ]);
}

#[test]
#[rustfmt::skip]
fn events_with_data() {
    check(&[
        ("comments", b": a\n\n:\n\n", 0, 0, false, None),
        ("a comment with an event", b": a\ndata: b\n\n", 0, 1, false, None),
        ("an event without data", b"event: ping\n\n", 0, 0, false, None),
        ("a field without colon", b"data\n\n", 0, 1, false, None),
        ("empty data", b"data:\n\n", 0, 1, false, None),
        ("field names have a case", b"Data: [DONE]\n\nDATA: x\n\n", 0, 0, false, None),
        ("fields that begin alike", b"database: [DONE]\n\ndata : x\n\n", 0, 0, false, None),
    ]);
}

#[test]
#[rustfmt::skip]
fn done() {
    check(&[
        ("with a space", b"data: [DONE]\n\n", 0, 1, true, None),
        ("without", b"data:[DONE]\r\n\r\n", 0, 1, true, None),
        ("with more space", b"data:  [DONE] \n\n", 0, 1, true, None),
        ("followed by more", b"data: [DONE]\n\ndata: x\n\n", 0, 2, true, None),
        ("not ended", b"data: [DONE]\n", 13, 0, false, None),
        ("a part of an event", b"data: [DONE]\ndata: x\n\n", 0, 1, false, None),
        ("within text", b"data: \"[DONE]\"\n\n", 0, 1, false, None),
        ("in a comment", b": [DONE]\n\n", 0, 0, false, None),
    ]);
}

#[test]
#[rustfmt::skip]
fn usage() {
    check(&[
        ("an object", b"data: {\"usage\":{\"a\":1}}\n\n", 0, 1, false, Some(b"{\"usage\":{\"a\":1}}")),
        ("with white space", b"data: {\"usage\" \t: {}}\n\n", 0, 1, false, Some(b"{\"usage\" \t: {}}")),
        ("null", b"data: {\"usage\":null}\n\n", 0, 1, false, None),
        ("null after an object", b"data: {\"usage\":{}}\n\ndata: {\"usage\": null}\n\n", 0, 2, false, Some(b"{\"usage\":{}}")),
        ("the newest", b"data: {\"usage\":{}}\n\ndata: {\"usage\":{\"b\":2}}\n\n", 0, 2, false, Some(b"{\"usage\":{\"b\":2}}")),
        ("null, then an object", b"data: [{\"usage\":null},{\"usage\":{}}]\n\n", 0, 1, false, Some(b"[{\"usage\":null},{\"usage\":{}}]")),
        ("said in text", b"data: {\"a\":\"\\\"usage\\\": {\"}\n\n", 0, 1, false, None),
        ("as a value", b"data: {\"a\":\"usage\",\"b\":{}}\n\n", 0, 1, false, None),
        ("a longer name", b"data: {\"x_usage\":{},\"usages\":{}}\n\n", 0, 1, false, None),
        ("over two lines", b"data: {\"usage\":\ndata: {}}\n\n", 0, 1, false, Some(b"{\"usage\":\n{}}")),
        ("in another field", b"event: {\"usage\":{}}\n\n", 0, 0, false, None),
        ("in an event that is not whole", b"data: {\"usage\":{}}\n", 19, 0, false, None),
        ("at the very end of the data", b"data: \"usage\"\n\ndata: \"usage\":\n\n", 0, 2, false, None),
    ]);
}

#[test]
fn events_are_bounded() {
    for (size, fits) in [(1024, true), (1025, false)] {
        let event = [b"data: ", &b"x".repeat(size - 7)[..], b"\n\n"].concat();
        for pieces in arrivals(&event) {
            let mut scanner = SseScanner::new(1024);
            let result = pieces.iter().try_for_each(|piece| scanner.feed(piece).map(|_| ()));
            assert_eq!(result.is_ok(), fits, "{size} bytes, {} pieces", pieces.len());
            assert_eq!(scanner.feed(b"\n\n").is_ok(), fits, "an error is final");
        }
    }
    let many = b"data: x\n\n".repeat(1000);
    assert_eq!(SseScanner::new(1024).feed(&many).as_deref(), Ok(&many[..]), "the bound is for one event");
    let error = SseScanner::new(4).feed(b"data: x").unwrap_err();
    assert_eq!(error.code, Code::UpstreamMalformed);
}

#[test]
fn whole_events_are_not_copied() {
    let events = b"data: a\n\ndata: b\n\n";
    assert!(matches!(SseScanner::new(1024).feed(events), Ok(std::borrow::Cow::Borrowed(passed)) if passed == events));
}
