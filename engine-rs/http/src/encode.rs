//! Heads that we send. A message is always written anew from its parts: its length is ours, and the
//! fields that speak about one connection (RFC 9110 7.6.1) stay on that connection.
use crate::grammar::{self, PATH, QUERY, VALUE};
use crate::status;

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The caller asked for a message that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("the method is not a token")]
    Method,
    #[error("the target is not a path with an optional query")]
    Target,
    #[error("the status is not between 100 and 599")]
    Status,
    #[error("a header field has no valid name: {0:?}")]
    Name(String),
    #[error("the value of the header field `{0}` has a control character or white space at an end")]
    Value(String),
    #[error("a request needs exactly one `host`")]
    Host,
}

type Result<T> = std::result::Result<T, EncodeError>;

/// What a head is about to say of the length of its body.
#[derive(Clone, Copy)]
enum Length {
    None,
    Sized(usize),
    Chunked,
}

/// A request to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct RequestEncoder<'a> {
    pub method: &'a str,
    /// A path with an optional query.
    pub target: &'a str,
    /// Bytes of the body that will follow; `None` for a request without one.
    pub length: Option<usize>,
}

impl RequestEncoder<'_> {
    /// The head, with exactly one Content-Length when there is a length. Dropped from `fields`:
    /// hop-by-hop fields, those that a Connection field names, lengths, credentials for a proxy,
    /// and Expect, as the body is sent without waiting.
    pub fn head<'f>(&self, fields: impl Iterator<Item = (&'f [u8], &'f [u8])> + Clone) -> Result<Vec<u8>> {
        if !grammar::is_token(self.method.as_bytes()) {
            return Err(EncodeError::Method);
        }
        check_target(self.target.as_bytes())?;
        if fields.clone().filter(|(name, _)| name.eq_ignore_ascii_case(b"host")).count() != 1 {
            return Err(EncodeError::Host);
        }
        let mut head = Vec::with_capacity(512);
        for part in [self.method, " ", self.target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        write_fields(&mut head, fields)?;
        write_length(&mut head, self.length.map_or(Length::None, Length::Sized));
        head.extend_from_slice(b"\r\n");
        Ok(head)
    }
}

fn check_target(target: &[u8]) -> Result<()> {
    let path = grammar::span(target, PATH);
    let well_formed = match &target[path..] {
        [] => true,
        [b'?', query @ ..] => grammar::all(query, QUERY),
        _ => false,
    };
    if well_formed && target.starts_with(b"/") { Ok(()) } else { Err(EncodeError::Target) }
}

/// A response to a client.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEncoder {
    pub status: u16,
    /// Bytes of the body; `None` for one that follows in chunks.
    pub length: Option<usize>,
    /// The connection ends with this response.
    pub close: bool,
    /// The client speaks HTTP/1.0: no chunks, and persistence has to be said.
    pub http10: bool,
}

impl ResponseEncoder {
    /// May this response carry a body at all (RFC 9110 6.4.1)?
    pub fn has_body(&self) -> bool {
        self.status >= 200 && self.status != 204 && self.status != 304
    }

    /// The head, which says the length itself and drops lengths and hop-by-hop fields from
    /// `fields`.
    pub fn head<'f>(&self, fields: impl Iterator<Item = (&'f [u8], &'f [u8])> + Clone) -> Result<Vec<u8>> {
        if !(100..=599).contains(&self.status) {
            return Err(EncodeError::Status);
        }
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(b"HTTP/1.1 ");
        write_number(&mut head, usize::from(self.status));
        head.push(b' ');
        head.extend_from_slice(status::reason(self.status).as_bytes());
        head.extend_from_slice(b"\r\n");
        write_fields(&mut head, fields)?;
        let length = self.length();
        write_length(&mut head, length);
        self.write_connection(&mut head, length);
        head.extend_from_slice(b"\r\n");
        Ok(head)
    }

    fn length(&self) -> Length {
        match self.length {
            _ if !self.has_body() => Length::None,
            Some(length) => Length::Sized(length),
            None if self.http10 => Length::None,
            None => Length::Chunked,
        }
    }

    // Without chunks a body of unknown length ends with the connection.
    fn write_connection(&self, head: &mut Vec<u8>, length: Length) {
        let endless = self.http10 && self.has_body() && matches!(length, Length::None);
        if self.close || endless {
            head.extend_from_slice(b"connection: close\r\n");
        } else if self.http10 {
            head.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
}

/// What stands before and after the data of one chunk; nothing for no data, since an empty chunk
/// would end the body.
pub fn chunk_frame(data: &[u8]) -> (Vec<u8>, &'static [u8]) {
    if data.is_empty() {
        return (Vec::new(), b"");
    }
    (format!("{:x}\r\n", data.len()).into_bytes(), b"\r\n")
}

fn write_fields<'f>(head: &mut Vec<u8>, fields: impl Iterator<Item = (&'f [u8], &'f [u8])> + Clone) -> Result<()> {
    let mut named = Vec::new();
    for (_, value) in fields.clone().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection")) {
        named.extend(grammar::elements(value));
    }
    for (name, value) in fields {
        if !grammar::is_token(name) {
            return Err(EncodeError::Name(String::from_utf8_lossy(name).into_owned()));
        }
        if stays_here(name) || named.iter().any(|option| option.eq_ignore_ascii_case(name) && !is_essential(name)) {
            continue;
        }
        if !grammar::all(value, VALUE) || grammar::trim(value).len() != value.len() {
            return Err(EncodeError::Value(String::from_utf8_lossy(name).into_owned()));
        }
        for part in [name, b": ", value, b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    Ok(())
}

// A Connection field may not take the address off a request.
fn is_essential(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"host")
}

fn stays_here(name: &[u8]) -> bool {
    const DROPPED: [&[u8]; 11] = [
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    DROPPED.iter().any(|dropped| dropped.len() == name.len() && dropped.eq_ignore_ascii_case(name))
}

fn write_length(head: &mut Vec<u8>, length: Length) {
    match length {
        Length::None => {}
        Length::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::Sized(length) => {
            head.extend_from_slice(b"content-length: ");
            write_number(head, length);
            head.extend_from_slice(b"\r\n");
        }
    }
}

fn write_number(head: &mut Vec<u8>, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    head.extend_from_slice(&digits[at..]);
}
