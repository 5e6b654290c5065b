//! Input rows ("activations") in the formats that matrices want them in. A format's rows lie side by side block after
//! block, so that a kernel that walks along many rows at once reads memory in order.

use super::memory::Buffer;
use super::quantize::{Q8_COLUMNS, Q8Block, Q8K_COLUMNS, Q8KBlock, Row, quantize_q8, quantize_q8k};
use crate::Isa;

/// What a matrix wants its input rows as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F32,
    /// Bytes with a scale per 256 columns; columns are a multiple of 256.
    Q8K,
    /// Bytes with a scale per 32 columns; columns are a multiple of 32.
    Q8,
}

/// A set of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Formats {
    pub f32: bool,
    pub q8k: bool,
    pub q8: bool,
}

impl Formats {
    pub fn union(self, other: Formats) -> Formats {
        Formats { f32: self.f32 | other.f32, q8k: self.q8k | other.q8k, q8: self.q8 | other.q8 }
    }

    pub fn contains(self, format: Format) -> bool {
        match format {
            Format::F32 => self.f32,
            Format::Q8K => self.q8k,
            Format::Q8 => self.q8,
        }
    }
}

impl From<Format> for Formats {
    fn from(format: Format) -> Formats {
        Formats { f32: format == Format::F32, q8k: format == Format::Q8K, q8: format == Format::Q8 }
    }
}

/// Columns of floats that lie together; the last run of a row is filled up with zeros.
pub(super) const RUN: usize = 64;

/// Input rows in every format that someone needs. Its memory is kept between uses.
#[derive(Debug, Default)]
pub struct Inputs {
    rows: usize,
    columns: usize,
    formats: Formats,
    f32: Buffer,
    q8k: Buffer,
    q8: Buffer,
}

impl Inputs {
    /// Makes room for `rows` of `columns` in all `formats`. Every row has to be set again.
    ///
    /// # Panics
    /// If the columns are not whole blocks of a format.
    pub fn reset(&mut self, rows: usize, columns: usize, formats: Formats) {
        assert!(
            !formats.q8k || columns.is_multiple_of(Q8K_COLUMNS),
            "{columns} columns are no blocks of {Q8K_COLUMNS}"
        );
        assert!(!formats.q8 || columns.is_multiple_of(Q8_COLUMNS), "{columns} columns are no blocks of {Q8_COLUMNS}");
        (self.rows, self.columns, self.formats) = (rows, columns, formats);
        if formats.f32 {
            self.f32.reserve(rows * columns.next_multiple_of(RUN) * size_of::<f32>());
        }
        if formats.q8k {
            self.q8k.reserve(rows * columns / Q8K_COLUMNS * size_of::<Q8KBlock>());
        }
        if formats.q8 {
            self.q8.reserve(rows * columns / Q8_COLUMNS * size_of::<Q8Block>());
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn formats(&self) -> Formats {
        self.formats
    }

    /// Converts a row to all formats. A row with an infinity or NaN in it becomes NaN where it is quantized.
    ///
    /// # Safety
    /// No other thread may set this row, or read any of it, at the same time.
    ///
    /// # Panics
    /// If there is no such row or `values` is not as long as it.
    pub unsafe fn set_row(&self, isa: Isa, row: usize, values: &[f32]) {
        assert!(row < self.rows && values.len() == self.columns, "row {row} of {} does not fit", values.len());
        // SAFETY: `reset` made room for blocks of this row in every format, and the row is the caller's alone.
        unsafe {
            if self.formats.f32 {
                self.copy_row(row, values);
            }
            if self.formats.q8k {
                quantize_q8k(isa, values, Row::new(self.q8k(0, row), self.rows));
            }
            if self.formats.q8 {
                quantize_q8(isa, values, Row::new(self.q8(0, row), self.rows));
            }
        }
    }

    /// # Safety
    /// As for `set_row`.
    unsafe fn copy_row(&self, row: usize, values: &[f32]) {
        for (run, values) in values.chunks(RUN).enumerate() {
            // SAFETY: `reset` made room for whole runs of every row.
            unsafe {
                let to = self.run(run, row);
                to.copy_from_nonoverlapping(values.as_ptr(), values.len());
                to.add(values.len()).write_bytes(0, RUN - values.len());
            }
        }
    }

    /// Where columns `RUN * run` and following of a row are; the next row's lie behind them.
    #[inline(always)]
    pub(super) fn run(&self, run: usize, row: usize) -> *mut f32 {
        self.f32.start().cast::<f32>().wrapping_add((run * self.rows + row) * RUN)
    }

    #[inline(always)]
    pub(super) fn q8k(&self, block: usize, row: usize) -> *mut Q8KBlock {
        self.q8k.start().cast::<Q8KBlock>().wrapping_add(block * self.rows + row)
    }

    #[inline(always)]
    pub(super) fn q8(&self, block: usize, row: usize) -> *mut Q8Block {
        self.q8.start().cast::<Q8Block>().wrapping_add(block * self.rows + row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_unite() {
        let both = Formats::from(Format::Q8).union(Format::F32.into());
        assert_eq!(both, Formats { f32: true, q8k: false, q8: true });
        assert!(both.contains(Format::Q8) && !both.contains(Format::Q8K));
    }

    #[test]
    #[should_panic(expected = "40 columns are no blocks of 32")]
    fn partial_blocks_are_refused() {
        Inputs::default().reset(1, 40, Format::Q8.into());
    }
}
