//! More than one message on a connection, handing it over, and calls in the wrong order.
use quiver_http::{Error, RequestParser};

use crate::arrivals::arrivals;
use crate::cases::LIMITS;

#[test]
fn pipelined_requests_come_out_one_by_one() {
    let bytes = [
        chunks!("3\r\nabc\r\n0\r\nT: u\r\n\r\n"),
        b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nPOST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"GET /4 HTTP/1.0\r\n\r\n",
    ]
    .concat();
    for pieces in arrivals(&bytes) {
        let (mut parser, mut seen, mut path) = (RequestParser::new(LIMITS), Vec::new(), None);
        for piece in pieces {
            parser.receive(piece);
            loop {
                if path.is_none() {
                    path = parser.head().unwrap().map(|head| head.path().to_owned());
                }
                let Some(found) = &path else { break };
                let Some(body) = parser.body().unwrap() else { break };
                seen.push((found.clone(), body.to_vec()));
                path = None;
            }
        }
        let want = [("/v1", &b"abc"[..]), ("/2", b""), ("/3", b"hi"), ("/4", b"")];
        assert_eq!(seen, want.map(|(path, body)| (path.to_owned(), body.to_vec())));
        assert_eq!(parser.buffered(), 0);
    }
}

#[test]
fn unread_gives_back_every_byte() {
    for (bytes, from) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest"[..], 0),
        (b"GET / HTTP/1.1\r\nHost: a", 0),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT", 27),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc", 56),
    ] {
        for pieces in arrivals(bytes) {
            let (mut parser, mut head) = (RequestParser::new(LIMITS), false);
            for piece in pieces {
                parser.receive(piece);
                head = head || parser.head().is_ok_and(|head| head.is_some());
            }
            assert_eq!((parser.unread(), parser.buffered()), (bytes[from..].to_vec(), 0));
        }
    }
}

#[test]
fn calls_in_the_wrong_order_are_ours() {
    let mut parser = RequestParser::new(LIMITS);
    assert!(matches!(parser.body(), Err(Error::Misuse(_))));
    parser.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    parser.head().unwrap();
    assert!(matches!(parser.head(), Err(Error::Misuse(_))));
    assert_eq!(parser.body(), Ok(Some(&b""[..])));
}
