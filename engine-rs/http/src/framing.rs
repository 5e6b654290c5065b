//! What the header fields say of the message itself: how long it is, and what becomes of the
//! connection.
//!
//! Everything on which two recipients could disagree about where a message ends is refused here
//! (RFC 9112 6).
use crate::error::{Code, HttpError};
use crate::fields::{Field, Place};
use crate::grammar;

/// Gathered field by field while a head is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) host: Option<Place>,
    pub(crate) content_length: Option<u64>,
    pub(crate) chunked: bool,
    pub(crate) upgrade: bool,
    pub(crate) expect: Expect,
    close: bool,
    keep_alive: bool,
    hosts: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Expect {
    #[default]
    Nothing,
    Continue,
    Unknown,
}

impl Facts {
    /// Takes note of one field. Sorted by length first, so that most fields cost one comparison of
    /// numbers.
    pub(crate) fn note(&mut self, head: &[u8], (name, place): Field) -> Result<(), HttpError> {
        let (name, value) = (&head[name.range()], &head[place.range()]);
        match name.len() {
            4 if same(name, b"host") => self.note_host(place),
            6 if same(name, b"expect") => self.note_expect(value),
            7 if same(name, b"upgrade") => self.upgrade = true,
            10 if same(name, b"connection") => self.note_connection(value),
            14 if same(name, b"content-length") => return self.note_content_length(value),
            17 if same(name, b"transfer-encoding") => return self.note_transfer_encoding(head, place),
            _ if name.contains(&b'_') && imitates(name) => {
                return Err(HttpError::framing("an underscore form of Content-Length, Transfer-Encoding or Host"));
            }
            _ => {}
        }
        Ok(())
    }

    fn note_host(&mut self, place: Place) {
        self.host = Some(place);
        self.hosts += 1;
    }

    fn note_expect(&mut self, value: &[u8]) {
        let known = same(value, b"100-continue") && self.expect != Expect::Unknown;
        self.expect = if known { Expect::Continue } else { Expect::Unknown };
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in grammar::elements(value) {
            self.close |= same(option, b"close");
            self.keep_alive |= same(option, b"keep-alive");
        }
    }

    // RFC 9112 6.3 allows a list of equal numbers to be taken as one; we do not.
    fn note_content_length(&mut self, value: &[u8]) -> Result<(), HttpError> {
        if self.content_length.is_some() {
            return Err(HttpError::framing("more than one Content-Length"));
        }
        let Some(length) = grammar::number(value) else {
            return Err(HttpError::framing("Content-Length is not a plain number"));
        };
        self.content_length = Some(length);
        Ok(())
    }

    // RFC 9112 5 lets a tab stand beside a value; llhttp does not know `chunked` with a tab behind it.
    fn note_transfer_encoding(&mut self, head: &[u8], place: Place) -> Result<(), HttpError> {
        let value = &head[place.range()];
        if self.chunked {
            return Err(HttpError::framing("more than one Transfer-Encoding"));
        }
        if has_tab_beside(head, place) {
            return Err(HttpError::framing("Transfer-Encoding has a tab beside its value"));
        }
        if !same(value, b"chunked") {
            return Err(refused_coding(value));
        }
        self.chunked = true;
        Ok(())
    }

    /// RFC 9112 6.1 and 6.3: no Transfer-Encoding on HTTP/1.0, never both forms of length.
    pub(crate) fn check_length(&self, http10: bool) -> Result<(), HttpError> {
        if self.chunked && http10 {
            return Err(HttpError::framing("Transfer-Encoding on an HTTP/1.0 message"));
        }
        if self.chunked && self.content_length.is_some() {
            return Err(HttpError::framing("Content-Length together with Transfer-Encoding"));
        }
        Ok(())
    }

    /// RFC 9112 3.2: exactly one Host, which HTTP/1.0 may leave out; it is a valid authority.
    pub(crate) fn check_host(&self, http10: bool, head: &[u8]) -> Result<(), HttpError> {
        let message = match (self.hosts, self.host) {
            (0, _) if http10 => return Ok(()),
            (0, _) | (_, None) => "the Host field is missing",
            (1, Some(place)) if grammar::is_host(&head[place.range()]) => return Ok(()),
            (1, _) => "the Host field is not a host name and port",
            _ => "more than one Host field",
        };
        Err(HttpError::new(Code::BadHost, message))
    }

    /// RFC 9112 9.3.
    pub(crate) fn persists(&self, http10: bool) -> bool {
        !self.close && (self.keep_alive || !http10)
    }
}

fn has_tab_beside(head: &[u8], place: Place) -> bool {
    let (before, behind) = (&head[..place.range().start], &head[place.range().end..]);
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
    before.iter().rev().take_while(is_space).chain(behind.iter().take_while(is_space)).any(|&byte| byte == b'\t')
}

fn same(left: &[u8], right: &[u8]) -> bool {
    left.eq_ignore_ascii_case(right)
}

/// Would the field, in a trailer, speak about framing or routing, which are settled by then (RFC 9110 6.5.1)?
pub(crate) fn is_misplaced_in_trailers(name: &[u8]) -> bool {
    imitates(name)
}

// Are the letters those of a field on which framing or routing hang? Servers with a CGI-like interface read `_` as `-`: one
// hop would see such a field and the next would not.
fn imitates(name: &[u8]) -> bool {
    let letters = || name.iter().filter(|byte| !matches!(byte, b'_' | b'-')).map(u8::to_ascii_lowercase);
    [&b"contentlength"[..], b"transferencoding", b"host"].iter().any(|known| letters().eq(known.iter().copied()))
}

// A coding that exists and that we do not know is 501 (RFC 9112 6.1); anything else is an attempt
// to be misread.
fn refused_coding(value: &[u8]) -> HttpError {
    let mut codings = grammar::elements(value).peekable();
    let mut well_formed = codings.peek().is_some() && !value.ends_with(b",") && !value.starts_with(b",");
    let mut chunked = 0;
    let mut last_is_chunked = false;
    for coding in codings {
        well_formed &= grammar::is_token(coding);
        last_is_chunked = same(coding, b"chunked");
        chunked += usize::from(last_is_chunked);
    }
    if well_formed && chunked == usize::from(last_is_chunked) {
        return HttpError::new(Code::TransferCodingNotImplemented, "a transfer coding other than chunked");
    }
    HttpError::framing("Transfer-Encoding is not `chunked`")
}
