//! Reads little-endian fields off a byte slice, one bounds check each. Whoever asks says what it is reading, so that an
//! error can name it and its offset. Nothing here knows what a GGUF file means beyond strings, values and arrays.

use std::ops::Range;
use std::path::Path;

use super::value::{Array, Kind, Value};
use crate::error::{Error, Result};

/// 1 GiB, the bound llama.cpp puts on a string.
const MAX_STRING: u64 = 1 << 30;
/// Arrays of arrays appear in no known model; the bound keeps a crafted file from exhausting the stack.
const MAX_DEPTH: usize = 8;

pub(super) struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Cursor { path, bytes, at: 0 }
    }

    pub fn offset(&self) -> usize {
        self.at
    }

    pub fn malformed(&self, what: impl std::fmt::Display) -> Error {
        Error::Malformed { path: self.path.to_owned(), what: format!("{what} (at offset {})", self.at) }
    }

    fn truncated(&self, what: &str, needed: u64) -> Error {
        Error::Truncated {
            path: self.path.to_owned(),
            what: what.to_owned(),
            offset: self.at as u64,
            needed,
            have: (self.bytes.len() - self.at) as u64,
        }
    }

    fn take(&mut self, what: &str, length: u64) -> Result<Range<usize>> {
        let left = self.bytes.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let range = self.at..self.at + length;
                self.at = range.end;
                Ok(range)
            }
            _ => Err(self.truncated(what, length)),
        }
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let range = self.take(what, N as u64)?;
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[range]);
        Ok(field)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed(what)?))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fixed(what)?))
    }

    pub fn string(&mut self, what: &str) -> Result<&'a [u8]> {
        let length = self.u64(what)?;
        if length > MAX_STRING {
            return Err(self.malformed(format_args!("{what} claims {length} bytes")));
        }
        let range = self.take(what, length)?;
        Ok(&self.bytes[range])
    }

    /// A key or tensor name, which must be UTF-8.
    pub fn name(&mut self, what: &str) -> Result<String> {
        let bytes = self.string(what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.malformed(format_args!("{what} is not UTF-8"))),
        }
    }

    fn kind(&mut self, what: &str) -> Result<Kind> {
        let id = self.u32(what)?;
        Kind::from_id(id).ok_or_else(|| self.malformed(format_args!("{what} has the unknown value type {id}")))
    }

    pub fn value(&mut self, what: &str) -> Result<Value> {
        Ok(match self.kind(what)? {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.fixed(what)?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.fixed(what)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.fixed(what)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.fixed(what)?)),
            Kind::U32 => Value::U32(self.u32(what)?),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.fixed(what)?)),
            Kind::U64 => Value::U64(self.u64(what)?),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.fixed(what)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.fixed(what)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.fixed(what)?)),
            Kind::Bool => Value::Bool(self.fixed::<1>(what)?[0] != 0),
            Kind::String => Value::String(String::from_utf8_lossy(self.string(what)?).into_owned()),
            Kind::Array => Value::Array(self.array(what, 0)?),
        })
    }

    fn array(&mut self, what: &str, depth: usize) -> Result<Array> {
        if depth >= MAX_DEPTH {
            return Err(self.malformed(format_args!("{what} nests arrays deeper than {MAX_DEPTH}")));
        }
        let kind = self.kind(what)?;
        let count = self.u64(what)?;
        let start = self.at;
        match kind.size() {
            Some(size) => {
                self.take(what, count.saturating_mul(size as u64))?;
            }
            None => self.skip_elements(what, kind, count, depth)?,
        }
        // Every element took at least a byte of the file, so the count fits.
        Ok(Array { kind, len: count as usize, bytes: start..self.at })
    }

    fn skip_elements(&mut self, what: &str, kind: Kind, count: u64, depth: usize) -> Result<()> {
        for _ in 0..count {
            if kind == Kind::String {
                self.string(what)?;
            } else {
                self.array(what, depth + 1)?;
            }
        }
        Ok(())
    }
}
