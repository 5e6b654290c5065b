//! Weight matrices and their products with rows of inputs. A matrix is packed once, into strips of sixteen rows whose
//! values lie as the vector instructions want them; inputs are converted to the format that it asks for.
//!
//! A product's bits depend on the weights, the input row and the instruction set alone: not on the rows it is computed
//! with, nor on how rows and strips are divided among calls and threads.
//!
//! `family` holds the loops around the kernels, `machine` the instruction sets; the others are the ways of packing.

mod blocks;
mod decoded;
mod family;
mod floats;
mod inputs;
mod kquants;
mod machine;
mod memory;
mod quantize;
mod scratch;
mod superblock;
mod supertile;
#[cfg(test)]
mod tests;

pub use inputs::{Format, Formats, Inputs};
pub use memory::NoMemory;
pub use scratch::MatrixScratch;

use crate::isa::Kind;
use crate::{BlockType, Isa};
use family::{Family, STRIP, Task};
use memory::Aligned;
use std::ops::Range;

use crate::output::Output;

/// Weights `[rows, columns]`, packed.
#[derive(Debug)]
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    isa: Isa,
    kind: BlockType,
    strip_bytes: usize,
    memory: Aligned,
}

/// Evaluates `$body` with `$family` the family of a kind.
macro_rules! with_family {
    ($kind:expr, $family:ident => $body:expr) => {{
        macro_rules! is {
            ($family_type:ty) => {{
                type $family = $family_type;
                $body
            }};
        }
        match $kind {
            BlockType::Q4_K => is!(superblock::Super<kquants::Q4K>),
            BlockType::Q5_K => is!(superblock::Super<kquants::Q5K>),
            BlockType::Q6_K => is!(superblock::Super<kquants::Q6K>),
            BlockType::Q8_0 => is!(blocks::Blocks<blocks::Q80>),
            BlockType::Q4_0 => is!(blocks::Blocks<blocks::Q40>),
            BlockType::F32 => is!(floats::Floats<floats::F32>),
            BlockType::F16 => is!(floats::Floats<floats::F16>),
            BlockType::BF16 => is!(floats::Floats<floats::BF16>),
            BlockType::Q2_K => is!(decoded::Decoded<decoded::Q2K>),
            BlockType::Q3_K => is!(decoded::Decoded<decoded::Q3K>),
            BlockType::Q4_1 => is!(decoded::Decoded<decoded::Q41>),
            BlockType::Q5_0 => is!(decoded::Decoded<decoded::Q50>),
            BlockType::Q5_1 => is!(decoded::Decoded<decoded::Q51>),
            other => unreachable!("{other} is refused when a weight is opened"),
        }
    }};
}

impl Matrix {
    /// Packs `rows` rows of `columns` weights out of a file's bytes, which need no alignment and are not kept.
    ///
    /// # Panics
    /// If the kind is none of `SUPPORTED`, or `bytes` are not as many as the matrix has.
    pub fn pack(isa: Isa, kind: BlockType, rows: usize, columns: usize, bytes: &[u8]) -> Result<Matrix, NoMemory> {
        let row_bytes = kind.bytes_for(columns);
        let expected = row_bytes.and_then(|row_bytes| row_bytes.checked_mul(rows));
        assert_eq!(expected, Some(bytes.len()), "bytes of a {kind} matrix of {rows} rows and {columns} columns");
        let (strip_bytes, pack_row) =
            with_family!(kind, F => (F::strip_bytes(columns), F::pack_row as fn(usize, &[u8], &mut [u8])));
        let total = rows.div_ceil(STRIP).checked_mul(strip_bytes).ok_or(NoMemory { bytes: usize::MAX })?;
        let memory = Aligned::zeroed(total)?;
        // SAFETY: the memory is this matrix's alone, zeroed, and of this size.
        let packed = unsafe { std::slice::from_raw_parts_mut(memory.start(), total) };
        if total > 0 {
            let strips = bytes.chunks(row_bytes.unwrap_or(1) * STRIP).zip(packed.chunks_exact_mut(strip_bytes));
            for (bytes, strip) in strips {
                for (row, bytes) in bytes.chunks_exact(row_bytes.unwrap_or(1)).enumerate() {
                    pack_row(row, bytes, strip);
                }
            }
        }
        Ok(Matrix { rows, columns, isa, kind, strip_bytes, memory })
    }

    /// What inputs it is multiplied with.
    pub fn format(&self) -> Format {
        with_family!(self.kind, F => F::FORMAT)
    }

    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// Strips of sixteen rows; the last one may have fewer.
    pub fn strips(&self) -> usize {
        self.rows.div_ceil(STRIP)
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Multiplies the weight rows of `strips` with the input rows `rows`. The product of weight row `w` with input row `r`
    /// goes to row `r`, column `w` of `out`.
    ///
    /// # Safety
    /// These places must lie in the memory that `out` was made for, and no other thread may use them, or set rows of
    /// `inputs`, meanwhile.
    ///
    /// # Panics
    /// If there are no such strips or rows, or `inputs` are not of this matrix's columns and format.
    #[allow(clippy::too_many_arguments, reason = "what is multiplied and where it goes")]
    pub unsafe fn multiply(
        &self,
        strips: Range<usize>,
        inputs: &Inputs,
        rows: Range<usize>,
        out: Output,
        scratch: &mut MatrixScratch,
    ) {
        assert!(
            strips.end <= self.strips() && rows.end <= inputs.rows(),
            "strips {strips:?} or rows {rows:?} are missing"
        );
        assert!(
            inputs.columns() == self.columns && inputs.formats().contains(self.format()),
            "inputs of {} columns as {:?} do not fit a {} matrix of {} columns",
            inputs.columns(),
            inputs.formats(),
            self.kind,
            self.columns
        );
        let task = Task {
            start: self.memory.start(),
            strip_bytes: self.strip_bytes,
            height: self.rows,
            columns: self.columns,
            inputs,
            out,
        };
        // SAFETY: `isa` was detected; the matrix is packed as its family packs, the inputs were checked, and the caller
        // vouches for `out`.
        unsafe { with_family!(self.kind, F => run::<F>(self.isa, &task, strips, rows, scratch)) }
    }
}

/// # Safety
/// As for `Task::run`.
unsafe fn run<F: Family>(
    isa: Isa,
    task: &Task<'_>,
    strips: Range<usize>,
    rows: Range<usize>,
    scratch: &mut MatrixScratch,
) {
    // SAFETY: an `Isa` of a kind exists only where its instructions were detected; the rest is the caller's.
    unsafe {
        match isa.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => task.run::<machine::Vnni, F>(strips, rows, scratch),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => task.run::<machine::Avx2, F>(strips, rows, scratch),
            #[cfg(target_arch = "aarch64")]
            Kind::NeonDot => task.run::<machine::Neon, F>(strips, rows, scratch),
            _ => task.run::<machine::Portable, F>(strips, rows, scratch),
        }
    }
}
