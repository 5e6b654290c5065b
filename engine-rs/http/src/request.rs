//! Requests from downstream: the strict parser of everything a client may send on one connection.
//!
//! Calls go round: `head` until it answers, then `body` until it answers, then `head` again. What
//! is refused, and why, is in `framing`, `fields`, `target` and `chunked`; the order of the steps
//! and the limits are here.
use crate::buffer::Buffer;
use crate::chunked::{ChunkDecoder, ChunkError, Progress};
use crate::error::{Code, Error, HttpError};
use crate::fields::{Fields, Place};
use crate::framing::{Expect, Facts};
use crate::head::HeadReader;
use crate::target::{self, RequestLine};

/// RFC 9112 3 recommends at least 8,000 bytes.
const MAX_REQUEST_LINE: usize = 8192;
/// So that places in a head fit in 32 bits.
const MAX_LIMIT: usize = 1 << 30;
/// Frame bytes between decoded payload and what is not yet decoded that are worth moving the latter
/// for.
const WORTH_MOVING: usize = 4096;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of request line and fields.
    pub head: usize,
    /// Bytes of a body, decoded.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head: 32 * 1024, body: 16 * 1024 * 1024 }
    }
}

/// The head of a request, and what follows from it.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub fields: Fields,
    pub http10: bool,
    /// May the connection carry another request after this one?
    pub keep_alive: bool,
    pub content_length: Option<u64>,
    pub chunked: bool,
    pub expect_continue: bool,
    /// The client offers another protocol.
    pub upgrade: bool,
    line: RequestLine,
}

impl RequestHead {
    pub fn method(&self) -> &str {
        self.text(self.line.method)
    }

    /// As received.
    pub fn target(&self) -> &str {
        self.text(self.line.target)
    }

    /// Without query, not percent-decoded; `*` for `OPTIONS *`.
    pub fn path(&self) -> &str {
        match self.text(self.line.path) {
            "" => "/",
            path => path,
        }
    }

    /// Without the `?`; empty when there is none.
    pub fn query(&self) -> &str {
        self.text(self.line.query)
    }

    /// Does a body of at least one byte follow, as far as the head can tell?
    pub fn has_body(&self) -> bool {
        self.chunked || self.content_length.is_some_and(|length| length > 0)
    }

    // All parts of a request line are ASCII by its grammar.
    fn text(&self, place: Place) -> &str {
        std::str::from_utf8(&self.fields.raw[place.range()]).unwrap_or_default()
    }
}

/// What the parser is reading.
#[derive(Debug)]
enum State {
    Head,
    Sized(usize),
    Chunked(ChunkDecoder, Progress),
}

#[derive(Debug)]
pub struct RequestParser {
    limits: Limits,
    buffer: Buffer,
    state: State,
    reader: HeadReader,
    line: Option<RequestLine>,
    /// The empty line that may stand before a request was there.
    skipped: bool,
    failed: Option<HttpError>,
}

impl RequestParser {
    pub fn new(limits: Limits) -> Self {
        RequestParser {
            limits: Limits { head: limits.head.min(MAX_LIMIT), ..limits },
            buffer: Buffer::default(),
            state: State::Head,
            reader: HeadReader::default(),
            line: None,
            skipped: false,
            failed: None,
        }
    }

    pub fn receive(&mut self, data: &[u8]) {
        self.buffer.extend(data);
    }

    /// Bytes received and not yet taken by a message.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Takes all bytes that no message has taken, for handing the connection over: after `head`
    /// these are the body's and what follows, while a head is incomplete or refused these are the
    /// head's.
    pub fn unread(&mut self) -> Vec<u8> {
        self.state = State::Head;
        self.reader = HeadReader::default();
        self.line = None;
        self.skipped = false;
        self.buffer.take_all()
    }

    /// The next request's head; `None` while it is incomplete. An error is final.
    pub fn head(&mut self) -> Result<Option<RequestHead>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if !matches!(self.state, State::Head) {
            return Err(Error::Misuse("the body of the last request has not been taken"));
        }
        self.read_head().map_err(|error| self.fail(error))
    }

    /// The whole decoded body, once it is complete. An error is final.
    pub fn body(&mut self) -> Result<Option<&[u8]>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        match self.state {
            State::Head => Err(Error::Misuse("no request's head has been taken")),
            State::Sized(length) if self.buffer.len() < length => Ok(None),
            State::Sized(length) => Ok(Some(self.finish(length, length))),
            State::Chunked(..) => match self.read_chunks() {
                Ok(Some(at)) => Ok(Some(self.finish(at.written, at.read))),
                Ok(None) => Ok(None),
                Err(error) => Err(self.fail(error)),
            },
        }
    }

    fn fail(&mut self, error: HttpError) -> Error {
        self.failed = Some(error.clone());
        error.into()
    }

    fn finish(&mut self, body: usize, message: usize) -> &[u8] {
        self.state = State::Head;
        &self.buffer.take(message)[..body]
    }

    fn read_head(&mut self) -> Result<Option<RequestHead>, HttpError> {
        let line = match self.line {
            Some(line) => line,
            None => match self.read_line()? {
                Some(line) => *self.line.insert(line),
                None => return Ok(None),
            },
        };
        if !self.reader.read_fields(self.buffer.pending(), self.limits.head)? {
            return Ok(None);
        }
        let (fields, facts) = self.reader.finish(self.buffer.pending());
        self.check(&fields.raw, &line, &facts)?;
        self.buffer.consume(fields.raw.len());
        self.line = None;
        self.skipped = false;
        self.state = self.body_of(&facts);
        Ok(Some(RequestHead {
            fields,
            http10: line.http10,
            keep_alive: facts.persists(line.http10),
            content_length: facts.content_length,
            chunked: facts.chunked,
            expect_continue: facts.expect == Expect::Continue && !line.http10,
            upgrade: facts.upgrade && !line.http10,
            line,
        }))
    }

    fn read_line(&mut self) -> Result<Option<RequestLine>, HttpError> {
        self.skip_empty_line();
        let head = self.buffer.pending();
        match head {
            [] => {
                self.buffer.compact();
                return Ok(None);
            }
            b"\r" if !self.skipped => return Ok(None),
            [first, ..] => target::may_begin(*first)?,
        }
        let limit = self.limits.head.min(MAX_REQUEST_LINE);
        let too_long = || HttpError::new(Code::TargetTooLong, format!("the request line is longer than {limit} bytes"));
        match self.reader.next_line(head, limit, too_long)? {
            Some(line) => target::read_request_line(head, line).map(Some),
            None => Ok(None),
        }
    }

    // RFC 9112 2.2 asks to skip at least one empty line before a request: some clients end a body
    // with a CRLF of their own.
    fn skip_empty_line(&mut self) {
        if !self.skipped && self.buffer.pending().starts_with(b"\r\n") {
            self.buffer.consume(2);
            self.skipped = true;
        }
    }

    fn body_of(&self, facts: &Facts) -> State {
        if facts.chunked {
            return State::Chunked(ChunkDecoder::new(self.limits.body as u64), Progress { written: 0, read: 0 });
        }
        State::Sized(usize::try_from(facts.content_length.unwrap_or(0)).unwrap_or(usize::MAX))
    }

    // What only the whole head can tell.
    fn check(&self, head: &[u8], line: &RequestLine, facts: &Facts) -> Result<(), HttpError> {
        facts.check_host(line.http10, head)?;
        if let Some(authority) = line.authority {
            let host = facts.host.map(|place| &head[place.range()]);
            if !host.is_some_and(|host| host.eq_ignore_ascii_case(&head[authority.range()])) {
                return Err(HttpError::new(Code::BadHost, "the target names another host than the Host field"));
            }
        }
        facts.check_length(line.http10)?;
        if facts.expect == Expect::Unknown && !line.http10 {
            return Err(HttpError::new(Code::ExpectationFailed, "the only expectation known is `100-continue`"));
        }
        if facts.content_length.is_some_and(|length| length > self.limits.body as u64) {
            return Err(self.body_too_large());
        }
        Ok(())
    }

    fn read_chunks(&mut self) -> Result<Option<Progress>, HttpError> {
        let State::Chunked(decoder, at) = &mut self.state else {
            return Ok(None);
        };
        let result = decoder.decode(self.buffer.pending_mut(), *at);
        *at = match result {
            Ok(progress) => progress,
            Err(ChunkError::Malformed(error)) => return Err(error),
            Err(ChunkError::TooLarge) => return Err(self.body_too_large()),
        };
        if decoder.is_done() {
            return Ok(Some(*at));
        }
        let gap = at.read - at.written;
        if gap >= WORTH_MOVING && gap >= self.buffer.len() - at.read {
            self.buffer.cut(at.written, at.read);
            at.read = at.written;
        }
        Ok(None)
    }

    fn body_too_large(&self) -> HttpError {
        HttpError::new(Code::BodyTooLarge, format!("the body is larger than {} bytes", self.limits.body))
    }
}
