//! GGUF files: the container of model weights and metadata, versions 2 and 3, mapped into memory and never copied.
//! Everything a file claims is checked against its size before it is believed; what the values mean is for others.
//!
//! The mapping is private and read-only. A file that another process shortens while it is mapped can still end this
//! process with SIGBUS: replace model files by renaming, do not rewrite them in place.

mod cursor;
mod tensor;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

#[cfg(unix)]
use memmap2::UncheckedAdvice;
use memmap2::{Mmap, MmapOptions};

pub use quiver_kernels::BlockType;
pub use tensor::{TensorInfo, TensorView};
pub use value::{Array, Kind, Value};

use crate::error::{Error, Result};
use cursor::Cursor;

const MAGIC: u32 = u32::from_le_bytes(*b"GGUF");
const DEFAULT_ALIGNMENT: u32 = 32;

/// An open GGUF file. `Send + Sync`; share it as `Arc<Gguf>`. The mapping lives as long as this does.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    map: Mmap,
    version: u32,
    values: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
}

impl Gguf {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// `Io`, `NotGguf`, `UnsupportedVersion`, `Truncated`, `Malformed` or `UnsupportedTensorType`: each names the file
    /// and, past the first bytes, the field and its offset.
    pub fn open(path: &Path) -> Result<Gguf> {
        let map = map_file(path)?;
        let header = Header::read(path, &map)?;
        let by_name = index(path, &header.tensors)?;
        Ok(Gguf {
            path: path.to_owned(),
            version: header.version,
            values: header.values,
            tensors: header.tensors,
            by_name,
            map,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn size_bytes(&self) -> usize {
        self.map.len()
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// All keys and values, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub fn architecture(&self) -> Result<&str> {
        self.str("general.architecture")
    }

    pub fn str(&self, key: &str) -> Result<&str> {
        self.required(key, self.opt_str(key)?)
    }

    pub fn u32(&self, key: &str) -> Result<u32> {
        self.required(key, self.opt_u32(key)?)
    }

    pub fn u64(&self, key: &str) -> Result<u64> {
        self.required(key, self.opt_u64(key)?)
    }

    pub fn f32(&self, key: &str) -> Result<f32> {
        self.required(key, self.opt_f32(key)?)
    }

    pub fn bool(&self, key: &str) -> Result<bool> {
        self.required(key, self.opt_bool(key)?)
    }

    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.optional(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// Any integer kind whose value fits.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.optional(key, "a 32-bit unsigned integer", |value| value.integer()?.try_into().ok())
    }

    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>> {
        self.optional(key, "a 64-bit unsigned integer", |value| value.integer()?.try_into().ok())
    }

    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        self.optional(key, "a float", Value::float)
    }

    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.optional(key, "a bool", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The bytes of each string of an array, straight from the mapping.
    pub fn strings(&self, key: &str) -> Result<Vec<&[u8]>> {
        let array = self.array(key, "an array of strings", |kind| kind == Kind::String)?;
        let mut rest = &self.map[array.bytes.clone()];
        let mut strings = Vec::with_capacity(array.len);
        for _ in 0..array.len {
            // The header pass walked these lengths; they are checked again because the file may change under us.
            let string = take_string(&mut rest).ok_or_else(|| self.malformed(format!("`{key}` changed while open")))?;
            strings.push(string);
        }
        Ok(strings)
    }

    /// An array of 32-bit integers of either sign (some writers use u32 for token types).
    pub fn i32s(&self, key: &str) -> Result<Vec<i32>> {
        self.words(key, "an array of i32", |kind| matches!(kind, Kind::I32 | Kind::U32), i32::from_le_bytes)
    }

    pub fn f32s(&self, key: &str) -> Result<Vec<f32>> {
        self.words(key, "an array of f32", |kind| kind == Kind::F32, f32::from_le_bytes)
    }

    /// An array of flags, written as bools or as whole numbers.
    pub fn flags(&self, key: &str) -> Result<Vec<bool>> {
        let flags = |kind| matches!(kind, Kind::Bool | Kind::U8 | Kind::I8 | Kind::I32 | Kind::U32);
        let array = self.array(key, "an array of bools", flags)?;
        let size = array.kind.size().unwrap_or(1);
        Ok(self.map[array.bytes.clone()].chunks_exact(size).map(|flag| flag.iter().any(|byte| *byte != 0)).collect())
    }

    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        self.opt_tensor(name).ok_or_else(|| Error::MissingTensor { tensor: name.to_owned() })
    }

    pub fn opt_tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.by_name.get(name).map(|at| self.view(&self.tensors[*at]))
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().map(|info| self.view(info))
    }

    /// Bytes of the mapping, for those who keep a `TensorInfo::range` beside an `Arc<Gguf>`.
    ///
    /// # Panics
    /// If the range is not one that this file handed out.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.map[range]
    }

    /// Lets the system take the memory of these bytes back until they are read again: for who has made a copy.
    pub fn release(&self, range: &std::ops::Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the mapping is read-only, so dropped pages come back from the file as they were.
        unsafe {
            let _ = self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len());
        }
    }

    /// An error about this file's content, for the modules that interpret it.
    pub fn malformed(&self, what: impl Into<String>) -> Error {
        Error::Malformed { path: self.path.clone(), what: what.into() }
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        TensorView { info, data: &self.map[info.range.clone()] }
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::MissingKey { path: self.path.clone(), key: key.to_owned() })
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        want: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong_kind(key, want, value)),
            },
        }
    }

    fn wrong_kind(&self, key: &str, want: &'static str, value: &Value) -> Error {
        let got = match value.integer() {
            Some(number) => format!("{} {number}", value.describe()),
            None => value.describe(),
        };
        Error::WrongKind { path: self.path.clone(), key: key.to_owned(), want, got }
    }

    fn array(&self, key: &str, want: &'static str, accepts: impl Fn(Kind) -> bool) -> Result<&Array> {
        match self.required(key, self.get(key))? {
            Value::Array(array) if accepts(array.kind) => Ok(array),
            other => Err(self.wrong_kind(key, want, other)),
        }
    }

    fn words<T>(
        &self,
        key: &str,
        want: &'static str,
        accepts: impl Fn(Kind) -> bool,
        read: impl Fn([u8; 4]) -> T,
    ) -> Result<Vec<T>> {
        let array = self.array(key, want, accepts)?;
        let (words, _) = self.map[array.bytes.clone()].as_chunks::<4>();
        Ok(words.iter().map(|word| read(*word)).collect())
    }
}

/// Splits a length-prefixed string off the front.
fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<8>()?;
    let (string, next) = after.split_at_checked(u64::from_le_bytes(*length).try_into().ok()?)?;
    *rest = next;
    Some(string)
}

fn map_file(path: &Path) -> Result<Mmap> {
    let failed = |operation| move |source| Error::Io { path: path.to_owned(), operation, source };
    // Checked before opening: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(failed("open the model file"))?;
    if !metadata.is_file() {
        return Err(Error::NotGguf { path: path.to_owned(), found: "not a regular file".to_owned() });
    }
    if metadata.len() == 0 {
        return Err(Error::NotGguf { path: path.to_owned(), found: "the file is empty".to_owned() });
    }
    let file = File::open(path).map_err(failed("open the model file"))?;
    // SAFETY: the mapping is private and read-only. Another process may still change the pages under it; every length
    // used to index them was read and checked once, at opening, and weights are plain numbers in any state.
    unsafe { MmapOptions::new().map_copy_read_only(&file) }.map_err(failed("map the model file"))
}

struct Header {
    version: u32,
    values: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
}

impl Header {
    fn read(path: &Path, bytes: &[u8]) -> Result<Header> {
        let mut cursor = Cursor::new(path, bytes);
        let version = read_version(path, &mut cursor)?;
        let tensor_count = cursor.u64("tensor count")?;
        let value_count = cursor.u64("metadata count")?;
        let values = read_values(&mut cursor, value_count)?;
        let alignment = alignment(&cursor, &values)?;
        let mut tensors = Vec::new();
        // Grown as read, never reserved: the count is only a claim.
        for _ in 0..tensor_count {
            tensors.push(tensor::read(&mut cursor, alignment)?);
        }
        let Some(data_start) = cursor.offset().checked_next_multiple_of(alignment) else {
            return Err(cursor.malformed("the data section starts out of range"));
        };
        for info in &mut tensors {
            tensor::place(info, data_start, bytes.len(), path)?;
        }
        Ok(Header { version, values, tensors })
    }
}

fn read_version(path: &Path, cursor: &mut Cursor<'_>) -> Result<u32> {
    let magic = cursor.u32("magic number")?;
    if magic != MAGIC {
        let found = format!("it starts with {:?}", magic.to_le_bytes().escape_ascii().to_string());
        return Err(Error::NotGguf { path: path.to_owned(), found });
    }
    match cursor.u32("version")? {
        version @ (2 | 3) => Ok(version),
        swapped if matches!(swapped.swap_bytes(), 1..=3) => {
            Err(Error::NotGguf { path: path.to_owned(), found: "a big-endian file".to_owned() })
        }
        version => Err(Error::UnsupportedVersion { path: path.to_owned(), version }),
    }
}

fn read_values(cursor: &mut Cursor<'_>, count: u64) -> Result<BTreeMap<String, Value>> {
    let mut values = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.name("metadata key")?;
        let value = cursor.value(&format!("metadata value `{key}`"))?;
        if values.contains_key(&key) {
            return Err(cursor.malformed(format_args!("metadata key `{key}` appears twice")));
        }
        values.insert(key, value);
    }
    Ok(values)
}

fn alignment(cursor: &Cursor<'_>, values: &BTreeMap<String, Value>) -> Result<usize> {
    match values.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT as usize),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(*alignment as usize),
        Some(other) => {
            let found = other.integer().map_or_else(|| other.describe(), |number| number.to_string());
            Err(cursor.malformed(format_args!("`general.alignment` should be a power of two, is {found}")))
        }
    }
}

fn index(path: &Path, tensors: &[TensorInfo]) -> Result<HashMap<String, usize>> {
    let mut by_name = HashMap::new();
    for (at, info) in tensors.iter().enumerate() {
        if by_name.insert(info.name.clone(), at).is_some() {
            let what = format!("tensor `{}` appears twice", info.name);
            return Err(Error::Malformed { path: path.to_owned(), what });
        }
    }
    Ok(by_name)
}
