//! Responses from upstream: one parser for one response, as strict as with clients, since an
//! upstream is no more trusted than they are.
//!
//! Whatever is wrong is 502 `upstream_malformed`, an end of the connection before the end of the
//! message 502 `upstream_truncated`.
use std::ops::Range;

use crate::buffer::Buffer;
use crate::chunked::{ChunkDecoder, ChunkError, Progress};
use crate::error::{Code, Error, HttpError};
use crate::fields::{Fields, Place};
use crate::framing::Facts;
use crate::grammar::{self, VALUE};
use crate::head::HeadReader;

/// 1xx responses before the one that counts.
const MAX_INTERIM: u32 = 8;
const MAX_LIMIT: usize = 1 << 30;

/// The head of a response, and what follows from it.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: u16,
    pub fields: Fields,
    /// As the field says; the body of a response to HEAD, or of 204 and 304, is empty all the same.
    pub content_length: Option<u64>,
    pub chunked: bool,
    /// May the connection carry another request after this response?
    pub keep_alive: bool,
    reason: Place,
}

impl ResponseHead {
    pub fn reason(&self) -> &[u8] {
        &self.fields.raw[self.reason.range()]
    }
}

/// What the parser is reading.
#[derive(Debug)]
enum State {
    Head,
    Sized(u64),
    Chunked(ChunkDecoder),
    UntilEnd,
    Complete,
}

#[derive(Debug)]
pub struct ResponseParser {
    limit: usize,
    /// A response to HEAD has no body whatever its fields say.
    bodiless: bool,
    buffer: Buffer,
    state: State,
    reader: HeadReader,
    line: Option<StatusLine>,
    interim: u32,
    ended: bool,
    keep_alive: bool,
    failed: Option<HttpError>,
}

#[derive(Clone, Copy, Debug)]
struct StatusLine {
    status: u16,
    reason: Place,
    http10: bool,
}

impl ResponseParser {
    /// `method` of the request that is answered; `limit` bounds each head.
    pub fn new(method: &str, limit: usize) -> Self {
        ResponseParser {
            limit: limit.min(MAX_LIMIT),
            bodiless: method == "HEAD",
            buffer: Buffer::default(),
            state: State::Head,
            reader: HeadReader::default(),
            line: None,
            interim: 0,
            ended: false,
            keep_alive: false,
            failed: None,
        }
    }

    /// Takes received bytes; none means that the peer has sent all it will.
    pub fn receive(&mut self, data: &[u8]) {
        self.ended |= data.is_empty();
        self.buffer.extend(data);
    }

    /// Did the message end as it said it would?
    pub fn complete(&self) -> bool {
        matches!(self.state, State::Complete) && self.failed.is_none()
    }

    /// May the connection carry another request? Not with bytes after the message: they would be
    /// taken for the next response.
    pub fn reusable(&self) -> bool {
        self.complete() && self.keep_alive && !self.ended && self.buffer.is_empty()
    }

    /// The final response's head; `None` while it is incomplete. An error is final.
    pub fn head(&mut self) -> Result<Option<ResponseHead>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if !matches!(self.state, State::Head) {
            return Err(Error::Misuse("the response's head has been taken"));
        }
        self.read_heads().map_err(|error| self.fail(error.of_upstream()).into()).and_then(|head| {
            if head.is_none() && self.ended {
                return Err(self
                    .fail(HttpError::truncated("the upstream closed the connection before its response"))
                    .into());
            }
            Ok(head)
        })
    }

    /// The decoded bytes of the body that have arrived since the last call. An error is final; it
    /// comes after the bytes before it.
    pub fn body(&mut self) -> Result<&[u8], Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if matches!(self.state, State::Head) {
            return Err(Error::Misuse("the response's head has not been taken"));
        }
        let Progress { written, read } = match self.read_body() {
            Ok(progress) => progress,
            Err(error) => return Err(self.fail(error.of_upstream()).into()),
        };
        if self.ended && written == 0 && !self.complete() {
            return Err(self
                .fail(HttpError::truncated("the upstream closed the connection within its response"))
                .into());
        }
        Ok(&self.buffer.take(read)[..written])
    }

    fn fail(&mut self, error: HttpError) -> HttpError {
        self.failed.insert(error).clone()
    }

    fn read_heads(&mut self) -> Result<Option<ResponseHead>, HttpError> {
        while let Some((line, fields, facts)) = self.read_head()? {
            if line.status >= 200 {
                return self.begin_body(line, fields, facts).map(Some);
            }
            self.skip(line.status, &facts)?;
        }
        Ok(None)
    }

    fn read_head(&mut self) -> Result<Option<(StatusLine, Fields, Facts)>, HttpError> {
        let (head, limit) = (self.buffer.pending(), self.limit);
        if self.line.is_none() {
            let Some(line) = self.reader.next_line(head, limit, || HttpError::head_too_large(limit))? else {
                return Ok(None);
            };
            self.line = Some(read_status_line(head, line)?);
        }
        if !self.reader.read_fields(head, limit)? {
            return Ok(None);
        }
        let (fields, facts) = self.reader.finish(head);
        self.buffer.consume(fields.raw.len());
        Ok(self.line.take().map(|line| (line, fields, facts)))
    }

    // RFC 9110 15.2: interim responses are passed over. Nobody asked to switch protocols, so 101 is
    // no answer.
    fn skip(&mut self, status: u16, facts: &Facts) -> Result<(), HttpError> {
        self.interim += 1;
        if status == 101 {
            return Err(HttpError::framing("the upstream switches protocols without being asked"));
        }
        if facts.chunked || facts.content_length.is_some_and(|length| length > 0) {
            return Err(HttpError::framing("an interim response has a body"));
        }
        if self.interim > MAX_INTERIM {
            return Err(HttpError::new(Code::UpstreamMalformed, format!("more than {MAX_INTERIM} interim responses")));
        }
        Ok(())
    }

    fn begin_body(&mut self, line: StatusLine, fields: Fields, facts: Facts) -> Result<ResponseHead, HttpError> {
        facts.check_length(line.http10)?;
        self.state = self.body_of(line.status, &facts)?;
        self.keep_alive = facts.persists(line.http10) && !matches!(self.state, State::UntilEnd);
        Ok(ResponseHead {
            status: line.status,
            fields,
            content_length: facts.content_length,
            chunked: facts.chunked,
            keep_alive: self.keep_alive,
            reason: line.reason,
        })
    }

    // RFC 9112 6.3, for responses.
    fn body_of(&self, status: u16, facts: &Facts) -> Result<State, HttpError> {
        if status == 204 && (facts.chunked || facts.content_length.is_some_and(|length| length > 0)) {
            return Err(HttpError::framing("a 204 response announces a body"));
        }
        Ok(match facts.content_length {
            _ if self.bodiless || status == 204 || status == 304 => State::Complete,
            _ if facts.chunked => State::Chunked(ChunkDecoder::new(u64::MAX)),
            Some(0) => State::Complete,
            Some(length) => State::Sized(length),
            None => State::UntilEnd,
        })
    }

    fn read_body(&mut self) -> Result<Progress, HttpError> {
        let mut progress = Progress { written: 0, read: 0 };
        let whole = match &mut self.state {
            State::Head | State::Complete => false,
            State::Sized(left) => {
                let count = self.buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                progress = Progress { written: count, read: count };
                *left == 0
            }
            State::Chunked(decoder) => {
                progress = decoder.decode(self.buffer.pending_mut(), progress).map_err(|error| match error {
                    ChunkError::Malformed(error) => error,
                    ChunkError::TooLarge => HttpError::chunk("the body is too large"),
                })?;
                decoder.is_done()
            }
            State::UntilEnd => {
                progress = Progress { written: self.buffer.len(), read: self.buffer.len() };
                self.ended
            }
        };
        if whole {
            self.state = State::Complete;
        }
        Ok(progress)
    }
}

// RFC 9112 4. The space before an empty reason is often left out and does no harm.
fn read_status_line(head: &[u8], line: Range<usize>) -> Result<StatusLine, HttpError> {
    let malformed = || HttpError::new(Code::UpstreamMalformed, "the upstream's status line is malformed");
    let bytes = &head[line.clone()];
    let http10 = match bytes.get(..9) {
        Some(b"HTTP/1.1 ") => false,
        Some(b"HTTP/1.0 ") => true,
        _ => return Err(malformed()),
    };
    let status = bytes.get(9..12).and_then(grammar::number).ok_or_else(malformed)? as u16;
    let reason = match &bytes[12..] {
        [] => line.end..line.end,
        [b' ', reason @ ..] if grammar::all(reason, VALUE) => line.start + 13..line.end,
        _ => return Err(malformed()),
    };
    if !(100..=599).contains(&status) {
        return Err(malformed());
    }
    Ok(StatusLine { status, reason: Place::of(reason), http10 })
}
