//! The header fields of one head: the exact bytes received, and where names and values lie in them.
use std::ops::Range;

use crate::error::HttpError;
use crate::grammar::{self, TOKEN, VALUE};

/// A place in the bytes of a head; a head is far smaller than 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    start: u32,
    end: u32,
}

impl Place {
    pub(crate) fn of(range: Range<usize>) -> Self {
        // Both fit: the limit of a head is clamped to 1 GiB when a parser is built.
        Place { start: range.start as u32, end: range.end as u32 }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Places of a name and of its value without the white space around it.
pub(crate) type Field = (Place, Place);

/// Reads one field line (RFC 9112 5) at `line` of `head`.
pub(crate) fn read_line(head: &[u8], line: Range<usize>) -> Result<Field, HttpError> {
    let bytes = &head[line.clone()];
    let name = grammar::span(bytes, TOKEN);
    match bytes.get(name) {
        Some(b':') if name > 0 => {}
        Some(b':') => return Err(HttpError::field("a header field has no name")),
        Some(b' ' | b'\t') if name == 0 => {
            return Err(HttpError::field("a header field is folded over two lines"));
        }
        Some(b' ' | b'\t') => {
            return Err(HttpError::field("white space stands before the colon of a header field"));
        }
        Some(_) => {
            return Err(HttpError::field("a header field's name has a character it must not have"));
        }
        None => return Err(HttpError::field("a header line has no colon")),
    }
    let value = &bytes[name + 1..];
    if !grammar::all(value, VALUE) {
        return Err(HttpError::field("a header field's value has a control character"));
    }
    let lead = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let start = line.start + name + 1 + lead;
    let end = start + grammar::trim(&value[lead..]).len();
    Ok((Place::of(line.start..line.start + name), Place::of(start..end)))
}

/// The exact bytes of a head and its fields, in the order received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub(crate) raw: Vec<u8>,
    pub(crate) list: Vec<Field>,
}

impl Fields {
    /// The first value of the field; names are compared without regard to case.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Names as they were received, values without the white space around them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|(name, value)| (&self.raw[name.range()], &self.raw[value.range()]))
    }

    /// The bytes of the whole head, its empty last line included.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }
}
