//! What the file says about a tensor, checked against the file's size, and a view of its bytes.

use std::ops::Range;
use std::path::Path;

use super::cursor::Cursor;
use crate::error::{Error, Result};
use quiver_kernels::BlockType;

/// ggml's own limit.
const MAX_DIMS: u32 = 4;

/// A tensor's entry in the file: outermost dimension first (a matrix is `[rows, columns]`), `range` in the mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub dims: Vec<usize>,
    pub kind: BlockType,
    pub range: Range<usize>,
}

/// A tensor and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    pub info: &'a TensorInfo,
    pub data: &'a [u8],
}

impl TensorInfo {
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Type and shape, for messages: `Q8_0 [32, 64]`.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.kind, self.dims)
    }
}

/// Reads one entry; its range is still relative to the data section, whose start is known only after the last entry.
pub(super) fn read(cursor: &mut Cursor<'_>, alignment: usize) -> Result<TensorInfo> {
    let name = cursor.name("tensor name")?;
    let count = cursor.u32("tensor dimension count")?;
    if !(1..=MAX_DIMS).contains(&count) {
        return Err(cursor.malformed(format_args!("tensor `{name}` has {count} dimensions")));
    }
    let mut dims = Vec::with_capacity(MAX_DIMS as usize);
    for _ in 0..count {
        let size = cursor.u64("tensor dimension")?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => dims.push(size),
            _ => {
                return Err(cursor.malformed(format_args!("tensor `{name}` has a dimension of {size}")));
            }
        }
    }
    let id = cursor.u32("tensor type")?;
    let Some(kind) = BlockType::from_id(id) else {
        return Err(Error::UnsupportedTensorType { tensor: name, name: BlockType::name_of(id) });
    };
    let offset = cursor.u64("tensor offset")?;
    let Some(bytes) = size_in_bytes(kind, &dims) else {
        return Err(cursor.malformed(format_args!("tensor `{name}`: {dims:?} is no size for {kind}")));
    };
    match usize::try_from(offset) {
        Ok(start) if start.is_multiple_of(alignment) && start.checked_add(bytes).is_some() => {
            dims.reverse();
            Ok(TensorInfo { name, dims, kind, range: start..start + bytes })
        }
        _ => Err(cursor.malformed(format_args!("tensor `{name}`: offset {offset} is misaligned or out of range"))),
    }
}

/// `dims` innermost first, as in the file: the innermost must be whole blocks.
fn size_in_bytes(kind: BlockType, dims: &[usize]) -> Option<usize> {
    let row = kind.bytes_for(dims[0])?;
    dims[1..].iter().try_fold(row, |bytes, dim| bytes.checked_mul(*dim))
}

/// Moves a relative range to where the data section starts and checks that the file holds it.
pub(super) fn place(info: &mut TensorInfo, data_start: usize, file: usize, path: &Path) -> Result<()> {
    let end = info.range.end.checked_add(data_start);
    if end.is_none_or(|end| end > file) {
        let start = data_start.saturating_add(info.range.start);
        return Err(Error::Truncated {
            path: path.to_owned(),
            what: format!("tensor `{}`", info.name),
            offset: start as u64,
            needed: info.range.len() as u64,
            have: file.saturating_sub(start) as u64,
        });
    }
    info.range = info.range.start + data_start..info.range.end + data_start;
    Ok(())
}
