//! Decoder of the chunked transfer coding (RFC 9112 7.1), in place: the payload moves to the front
//! of the bytes that carried it.
//!
//! One byte decides one step, so no part of a chunk's frame is ever stored or looked at twice.
use crate::error::HttpError;
use crate::framing;
use crate::grammar::{self, QUOTED, TOKEN, VALUE};

/// Sixteen digits fill 64 bits.
const MAX_DIGITS: u8 = 16;
/// Bytes of the extensions of one chunk.
const MAX_EXTENSION: usize = 256;
/// Bytes of the extensions of all chunks of a message: a byte of payload must not cost 256 of frame
/// for ever.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Bytes of all trailer fields.
const MAX_TRAILERS: usize = 8 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension(Extension),
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Where in `;name`, `;name=value` or `;name="quoted value"` (RFC 9112 7.1.1). White space around the signs is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    Begun,
    Name,
    Equals,
    Value,
    Quoted,
    Escaped,
    Unquoted,
}

#[derive(Debug)]
pub(crate) struct ChunkDecoder {
    state: State,
    digits: u8,
    /// The size while it is read, then what is missing of the chunk.
    left: u64,
    /// Bytes of the present chunk's extensions.
    extension: usize,
    extensions: usize,
    trailers: usize,
    trailer_name: Vec<u8>,
    /// How much payload may still come.
    room: u64,
}

/// How far a call came: payload up to `written`, input up to `read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) written: usize,
    pub(crate) read: usize,
}

/// What is wrong with a chunk, or that the payload outgrows its room.
#[derive(Debug)]
pub(crate) enum ChunkError {
    Malformed(HttpError),
    TooLarge,
}

impl From<HttpError> for ChunkError {
    fn from(error: HttpError) -> Self {
        ChunkError::Malformed(error)
    }
}

impl ChunkDecoder {
    pub(crate) fn new(room: u64) -> Self {
        ChunkDecoder {
            state: State::Size,
            digits: 0,
            left: 0,
            extension: 0,
            extensions: 0,
            trailers: 0,
            trailer_name: Vec::new(),
            room,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes `bytes[at.read..]` and appends the payload at `at.written`, which never passes
    /// `at.read`.
    pub(crate) fn decode(&mut self, bytes: &mut [u8], at: Progress) -> Result<Progress, ChunkError> {
        let Progress { mut written, mut read } = at;
        while read < bytes.len() && !self.is_done() {
            if self.state == State::Data {
                let count = (bytes.len() - read).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                bytes.copy_within(read..read + count, written);
                written += count;
                read += count;
                self.took(count as u64);
            } else {
                self.step(bytes[read])?;
                read += 1;
            }
        }
        Ok(Progress { written, read })
    }

    fn took(&mut self, count: u64) {
        self.left -= count;
        if self.left == 0 {
            self.state = State::DataCr;
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match self.state {
            State::Size => return self.size(byte),
            State::Extension(at) => self.extension(at, byte)?,
            State::SizeLf => self.size_ends(byte)?,
            State::DataCr => expect(byte, b'\r', State::DataLf, "a chunk is longer than its size")?,
            State::DataLf => expect(byte, b'\n', State::Size, "a chunk does not end in CRLF")?,
            State::EndLf => expect(byte, b'\n', State::Done, "the last chunk does not end in CRLF")?,
            _ => return Ok(self.trailer(byte)?),
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<(), ChunkError> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            if self.digits == MAX_DIGITS {
                return Err(HttpError::chunk("a chunk size has more than 16 digits").into());
            }
            self.digits += 1;
            self.left = self.left << 4 | u64::from(digit);
            return Ok(());
        }
        self.state = match byte {
            _ if self.digits == 0 => return Err(HttpError::chunk("a chunk has no size").into()),
            b'\r' => State::SizeLf,
            b';' => State::Extension(Extension::Begun),
            _ => return Err(HttpError::chunk("a chunk size is not hexadecimal").into()),
        };
        if self.left > self.room {
            return Err(ChunkError::TooLarge);
        }
        self.room -= self.left;
        Ok(())
    }

    fn extension(&mut self, at: Extension, byte: u8) -> Result<State, HttpError> {
        if byte == b'\r' && matches!(at, Extension::Name | Extension::Value | Extension::Unquoted) {
            return Ok(State::SizeLf);
        }
        self.extension += 1;
        self.extensions += 1;
        if self.extension > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err(HttpError::chunk("the chunk extensions are too long"));
        }
        at.next(byte).map(State::Extension).ok_or_else(|| HttpError::chunk("a chunk extension is malformed"))
    }

    fn size_ends(&mut self, byte: u8) -> Result<State, HttpError> {
        self.digits = 0;
        self.extension = 0;
        let next = if self.left == 0 { State::TrailerStart } else { State::Data };
        expect(byte, b'\n', next, "a chunk size does not end in CRLF")
    }

    // Trailer fields are read for their grammar and dropped (RFC 9110 6.5.1 forbids merging what is
    // not known to be safe).
    fn trailer(&mut self, byte: u8) -> Result<(), HttpError> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(HttpError::chunk("the trailer fields are too long"));
        }
        self.state = match self.state {
            State::TrailerStart if byte == b'\r' => State::EndLf,
            State::TrailerStart | State::TrailerName => return self.trailer_name(byte),
            State::TrailerValue if grammar::is(byte, VALUE) => State::TrailerValue,
            State::TrailerValue if byte == b'\r' => State::TrailerLf,
            State::TrailerLf if byte == b'\n' => State::TrailerStart,
            _ => return Err(HttpError::chunk("a trailer field is malformed")),
        };
        Ok(())
    }

    fn trailer_name(&mut self, byte: u8) -> Result<(), HttpError> {
        if grammar::is(byte, TOKEN) {
            self.state = State::TrailerName;
            self.trailer_name.push(byte);
            return Ok(());
        }
        if byte != b':' || self.trailer_name.is_empty() {
            return Err(HttpError::chunk("a trailer field has no valid name"));
        }
        if framing::is_misplaced_in_trailers(&self.trailer_name) {
            return Err(HttpError::chunk("a trailer field speaks about framing or routing"));
        }
        self.trailer_name.clear();
        self.state = State::TrailerValue;
        Ok(())
    }
}

impl Extension {
    fn next(self, byte: u8) -> Option<Self> {
        use Extension::{Begun, Equals, Escaped, Name, Quoted, Unquoted, Value};
        match (self, byte) {
            (Begun | Name, _) if grammar::is(byte, TOKEN) => Some(Name),
            (Name, b'=') => Some(Equals),
            (Equals, b'"') => Some(Quoted),
            (Equals | Value, _) if grammar::is(byte, TOKEN) => Some(Value),
            (Quoted, b'"') => Some(Unquoted),
            (Quoted, b'\\') => Some(Escaped),
            (Quoted | Escaped, _) if grammar::is(byte, QUOTED) => Some(Quoted),
            (Name | Value | Unquoted, b';') => Some(Begun),
            _ => None,
        }
    }
}

fn expect(byte: u8, wanted: u8, next: State, message: &'static str) -> Result<State, HttpError> {
    if byte == wanted { Ok(next) } else { Err(HttpError::chunk(message)) }
}
