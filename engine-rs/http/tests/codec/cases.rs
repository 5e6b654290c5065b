//! How a case of a request is written and run. Cases are named after the clause they come from.
use quiver_http::{Error, Limits, RequestHead, RequestParser};

use crate::arrivals::{TRAILING, arrivals};

pub const LIMITS: Limits = Limits { head: 16 * 1024, body: 1024 };

/// What becomes of the bytes of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// One request with this body, and nothing left.
    Body(&'static [u8]),
    /// Refused with this code.
    Refused(&'static str),
    /// Not yet a whole request.
    More,
}

/// The body and what was left behind it, or why there is none.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Body(Vec<u8>, Vec<u8>),
    Refused(&'static str),
    More,
}

pub fn code(error: &Error) -> &'static str {
    match error {
        Error::Http(error) => error.code.name(),
        Error::Misuse(message) => message,
    }
}

fn step(parser: &mut RequestParser, begun: &mut bool) -> Result<Option<Vec<u8>>, Error> {
    if !*begun {
        *begun = parser.head()?.is_some();
    }
    if *begun { Ok(parser.body()?.map(<[u8]>::to_vec)) } else { Ok(None) }
}

pub fn run(pieces: &[&[u8]]) -> Outcome {
    let mut parser = RequestParser::new(LIMITS);
    let (mut begun, mut body) = (false, None);
    for piece in pieces {
        parser.receive(piece);
        if body.is_some() {
            continue;
        }
        match step(&mut parser, &mut begun) {
            Ok(found) => body = found,
            Err(error) => {
                assert_eq!(parser.head().err(), Some(error.clone()), "an error is final");
                assert_eq!(parser.body().err(), Some(error.clone()), "an error is final");
                return Outcome::Refused(code(&error));
            }
        }
    }
    body.map_or(Outcome::More, |body| Outcome::Body(body, parser.unread()))
}

fn expected(want: Want, rest: &[u8]) -> Outcome {
    match want {
        Want::Body(body) => Outcome::Body(body.to_vec(), rest.to_vec()),
        Want::Refused(code) => Outcome::Refused(code),
        Want::More => Outcome::More,
    }
}

/// Runs each case whole, in pieces, and with bytes behind it.
pub fn check(table: &[(&str, &[u8], Want)]) {
    for (name, bytes, want) in table {
        for pieces in arrivals(bytes) {
            assert_eq!(run(&pieces), expected(*want, b""), "{name}, {} pieces", pieces.len());
        }
        if *want == Want::More {
            continue;
        }
        let followed = [bytes, TRAILING].concat();
        for pieces in arrivals(&followed) {
            assert_eq!(run(&pieces), expected(*want, TRAILING), "{name}, followed, {} pieces", pieces.len());
        }
    }
}

/// The head of the only request in the bytes.
pub fn head_of(bytes: &[u8]) -> RequestHead {
    let mut parser = RequestParser::new(LIMITS);
    parser.receive(bytes);
    match parser.head() {
        Ok(Some(head)) => head,
        other => panic!("no head but {other:?}"),
    }
}
