//! Server-sent events (WHATWG HTML 9.2), watched and not decoded: where events end, and the three
//! things the gateway wants to know of them - how many carried data, whether `[DONE]` came, and the
//! newest usage figures.
use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem::Finder;

use crate::error::{Code, HttpError};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Watches one event stream. Events are released only when they are whole, byte for byte as they
/// came but for a byte order mark at the very beginning, which is dropped: after a heartbeat of
/// ours it would spoil the field name that it stands before.
#[derive(Debug)]
pub struct SseScanner {
    limit: usize,
    /// The unfinished event.
    held: Vec<u8>,
    event: Event,
    /// How many bytes of a leading byte order mark have been met; all of them once it is past or
    /// known to be absent.
    mark: usize,
    /// The last event ended in a CR that was the last byte received; a LF right behind it is a part
    /// of that line end.
    after_cr: bool,
    failed: Option<HttpError>,
    seen: Seen,
}

/// What is known of the unfinished event. Offsets count from its first byte.
#[derive(Debug, Default)]
struct Event {
    line: usize,
    searched: usize,
    /// Places of the values of its `data` lines.
    data: Vec<Range<usize>>,
}

/// What has passed.
#[derive(Debug)]
struct Seen {
    events: u64,
    done: bool,
    usage: Option<Vec<u8>>,
    finder: Finder<'static>,
}

impl SseScanner {
    /// `limit` bounds the bytes of one event, and so what is held back.
    pub fn new(limit: usize) -> Self {
        let seen = Seen { events: 0, done: false, usage: None, finder: Finder::new(b"\"usage\"") };
        SseScanner { limit, held: Vec::new(), event: Event::default(), mark: 0, after_cr: false, failed: None, seen }
    }

    /// The bytes of all events that are whole now and were not released before. An error is final.
    pub fn feed<'a>(&mut self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, HttpError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.release(data).inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// The bytes of the unfinished event.
    pub fn rest(&self) -> &[u8] {
        &self.held
    }

    /// Events with data that have passed; comments and empty events are not counted.
    pub fn events(&self) -> u64 {
        self.seen.events
    }

    /// Has an event with the data `[DONE]` passed?
    pub fn done(&self) -> bool {
        self.seen.done
    }

    /// The data of the newest event in which a member `usage` is an object.
    pub fn usage(&self) -> Option<&[u8]> {
        self.seen.usage.as_deref()
    }

    fn release<'a>(&mut self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, HttpError> {
        let data = self.without_mark(data);
        if self.mark < BOM.len() {
            return Ok(Cow::Borrowed(b""));
        }
        if self.held.is_empty() {
            let end = self.scan(data)?;
            self.held.extend_from_slice(&data[end..]);
            return Ok(Cow::Borrowed(&data[..end]));
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(data);
        let end = self.scan(&held)?;
        self.held = held.split_off(end);
        Ok(Cow::Owned(held))
    }

    // The bytes of a mark are held until it is clear that they are one.
    fn without_mark<'a>(&mut self, mut data: &'a [u8]) -> &'a [u8] {
        while self.mark < BOM.len() {
            let Some((byte, rest)) = data.split_first() else { break };
            if *byte != BOM[self.mark] {
                self.mark = BOM.len();
                break;
            }
            data = rest;
            self.mark += 1;
            self.held.push(*byte);
            if self.mark == BOM.len() {
                self.held.clear();
            }
        }
        data
    }

    /// How many of the bytes, which begin where the unfinished event does, belong to whole events.
    fn scan(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let mut whole = 0;
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            whole = usize::from(bytes[0] == b'\n');
        }
        while let Some(length) = self.event_length(&bytes[whole..])? {
            whole += length;
        }
        self.check(bytes.len() - whole)?;
        Ok(whole)
    }

    /// The length of the event at the beginning of the bytes, if it is whole.
    fn event_length(&mut self, bytes: &[u8]) -> Result<Option<usize>, HttpError> {
        while let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[self.event.searched..]) {
            let at = self.event.searched + found;
            let empty = at == self.event.line;
            let next = match bytes[at..] {
                [b'\r', b'\n', ..] => at + 2,
                // Whether a LF belongs to this line end is not known yet. A line can wait for it;
                // the end of an event need not.
                [b'\r'] if !empty => {
                    self.event.searched = at;
                    return Ok(None);
                }
                _ => at + 1,
            };
            if empty {
                self.check(at)?;
                self.after_cr = bytes[at..] == *b"\r";
                self.seen.pass(bytes, &self.event.data);
                self.event.restart();
                return Ok(Some(next));
            }
            self.event.note_line(bytes, at, next);
        }
        self.event.searched = bytes.len();
        Ok(None)
    }

    fn check(&self, length: usize) -> Result<(), HttpError> {
        if length > self.limit {
            let message = format!("an event of the stream is larger than {} bytes", self.limit);
            return Err(HttpError::new(Code::UpstreamMalformed, message));
        }
        Ok(())
    }
}

impl Event {
    fn restart(&mut self) {
        self.line = 0;
        self.searched = 0;
        self.data.clear();
    }

    fn note_line(&mut self, bytes: &[u8], end: usize, next: usize) {
        let value = match &bytes[self.line..end] {
            b"data" => Some(end),
            [b'd', b'a', b't', b'a', b':', b' ', ..] => Some(self.line + 6),
            [b'd', b'a', b't', b'a', b':', ..] => Some(self.line + 5),
            _ => None,
        };
        self.data.extend(value.map(|start| start..end));
        self.line = next;
        self.searched = next;
    }
}

impl Seen {
    fn pass(&mut self, bytes: &[u8], data: &[Range<usize>]) {
        let payload = match data {
            [] => return,
            [line] => Cow::Borrowed(&bytes[line.clone()]),
            lines => Cow::Owned(lines.iter().map(|line| &bytes[line.clone()]).collect::<Vec<_>>().join(&b'\n')),
        };
        self.events += 1;
        self.done |= payload.trim_ascii() == b"[DONE]";
        if self.has_usage(&payload) {
            let usage = self.usage.get_or_insert_default();
            usage.clear();
            usage.extend_from_slice(&payload);
        }
    }

    // `"usage"` followed by a colon is a member's name: within a JSON string the quotes would be
    // escaped. What follows decides between an object and the null that many servers send with
    // every chunk.
    fn has_usage(&self, payload: &[u8]) -> bool {
        self.finder.find_iter(payload).any(|at| {
            let rest = payload[at + self.finder.needle().len()..].trim_ascii_start();
            rest.strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"{"))
        })
    }
}
