//! The first line of a request: method, target, version (RFC 9112 3).
use std::ops::Range;

use crate::error::{Code, HttpError};
use crate::fields::Place;
use crate::grammar::{self, PATH, QUERY, TOKEN};

/// The longest registered method has 17 letters (RFC 9110 16.1.1 registry); RFC 9112 3 asks for 501
/// beyond what a server knows.
const MAX_METHOD: usize = 32;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: Place,
    pub(crate) target: Place,
    /// Authority of an absolute-form target.
    pub(crate) authority: Option<Place>,
    /// Empty for an absolute-form target without a path, which stands for `/`.
    pub(crate) path: Place,
    pub(crate) query: Place,
    pub(crate) http10: bool,
}

fn bad_line(message: &'static str) -> HttpError {
    HttpError::new(Code::BadRequestLine, message)
}

fn bad_target(message: &'static str) -> HttpError {
    HttpError::new(Code::BadTarget, message)
}

/// May a request begin with this byte? Asked before the line is whole: a TLS hello has no end of
/// line.
pub(crate) fn may_begin(byte: u8) -> Result<(), HttpError> {
    match byte {
        0x16 => Err(bad_line("this port speaks plain HTTP and was sent a TLS handshake")),
        _ if grammar::is(byte, TOKEN) => Ok(()),
        _ => Err(bad_line("the request does not begin with a method")),
    }
}

pub(crate) fn read_request_line(head: &[u8], line: Range<usize>) -> Result<RequestLine, HttpError> {
    let bytes = &head[line.clone()];
    let method = grammar::span(bytes, TOKEN);
    let version = memchr::memrchr(b' ', bytes).unwrap_or(0);
    if method == 0 || bytes.get(method) != Some(&b' ') || version <= method {
        return Err(bad_line("the request line is not a method, a target and a version with one space between them"));
    }
    let http10 = read_version(&bytes[version + 1..], &bytes[..version])?;
    check_method(&bytes[..method])?;
    let start = line.start + method + 1;
    let mut read = read_target(head, start..line.start + version)?;
    if head[read.target.range()] == *b"*" && bytes[..method] != *b"OPTIONS" {
        return Err(bad_target("the target `*` is for OPTIONS"));
    }
    read.method = Place::of(line.start..line.start + method);
    read.http10 = http10;
    Ok(read)
}

fn read_version(version: &[u8], before: &[u8]) -> Result<bool, HttpError> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        b"HTTP/2.0" if before == b"PRI *" => {
            Err(HttpError::new(Code::Http2Preface, "the connection begins with the preface of HTTP/2"))
        }
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(HttpError::new(Code::VersionNotSupported, "the version of HTTP is neither 1.0 nor 1.1"))
        }
        _ => Err(bad_line("the request line does not end in a version of HTTP")),
    }
}

fn check_method(method: &[u8]) -> Result<(), HttpError> {
    match method {
        b"CONNECT" | b"TRACE" => Err(HttpError::new(Code::MethodNotImplemented, "CONNECT and TRACE are not offered")),
        _ if method.len() > MAX_METHOD => Err(HttpError::new(Code::MethodNotImplemented, "the method is not known")),
        _ => Ok(()),
    }
}

fn read_target(head: &[u8], target: Range<usize>) -> Result<RequestLine, HttpError> {
    let bytes = &head[target.clone()];
    let authority = match bytes {
        [b'/', ..] | b"*" => None,
        _ => Some(read_authority(bytes)?),
    };
    let from = authority.as_ref().map_or(0, |place| place.end);
    let path = if bytes == b"*" { 1 } else { grammar::span(&bytes[from..], PATH) };
    let (path, rest) = (from..from + path, &bytes[from + path..]);
    if !grammar::escapes_are_whole(&bytes[path.clone()]) {
        return Err(bad_target("the path has a `%` without two hexadecimal digits"));
    }
    let query = match rest {
        [] => bytes.len()..bytes.len(),
        [b'?', query @ ..] if grammar::all(query, QUERY) => path.end + 1..bytes.len(),
        _ => return Err(bad_target("the target has a character it must not have")),
    };
    let place = |range: Range<usize>| Place::of(target.start + range.start..target.start + range.end);
    Ok(RequestLine {
        target: Place::of(target.clone()),
        authority: authority.map(place),
        path: place(path),
        query: place(query),
        ..RequestLine::default()
    })
}

// absolute-form, RFC 9112 3.2.2: `http://authority/path`. Any other form is refused.
fn read_authority(target: &[u8]) -> Result<Range<usize>, HttpError> {
    let scheme = [&b"http://"[..], b"https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or_else(|| bad_target("the target does not begin with `/`"))?
        .len();
    let end = memchr::memchr2(b'/', b'?', &target[scheme..]).map_or(target.len(), |found| scheme + found);
    Ok(scheme..end)
}
