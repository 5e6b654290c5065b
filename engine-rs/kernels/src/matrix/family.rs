//! What the kinds of weights have in common, and the two ways through a product: a few input rows straight from the
//! packed strips, which reads the weights once and is as fast as memory; many rows by register tiles on weights that are
//! unpacked span by span. Both give the same bits.

use super::inputs::{Format, Inputs};
use super::machine::Machine;
use super::output::{Output, Store};
use super::scratch::MatrixScratch;
use std::ops::Range;

/// Weight rows of a strip.
pub(super) const STRIP: usize = 16;

/// One input row's products with a strip.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Total(pub(super) [f32; STRIP]);

/// A span of a strip in the form that register tiles read: 256 columns at most, as bytes (four columns at a time, so that
/// a quarter of the room is used) or floats (a column at a time).
#[repr(C, align(64))]
pub(super) struct Unpacked {
    pub(super) bytes: [u8; 4 * 4096],
    pub(super) factors: [[f32; STRIP]; 16],
    pub(super) minima: [[i16; 2 * STRIP]; 4],
    pub(super) minimum: [f32; STRIP],
}

/// A way of packing, and its kernels. All functions but the first two are unsafe for the same reason: the machine must
/// be available, and the pointers valid for what the family reads and writes through them.
pub(super) trait Family {
    const FORMAT: Format;
    /// Columns that are unpacked at a time.
    const SPAN: usize;
    /// Whether there is a `few`.
    const DIRECT: bool;

    fn strip_bytes(columns: usize) -> usize;
    /// Packs one row of blocks into a strip that is zero where nothing was packed yet.
    fn pack_row(row: usize, bytes: &[u8], strip: &mut [u8]);
    /// Products of a strip with `R` input rows.
    unsafe fn few<M: Machine, const R: usize>(
        strip: *const u8,
        columns: usize,
        inputs: &Inputs,
        row: usize,
        totals: *mut Total,
    );
    unsafe fn unpack<M: Machine>(strip: *const u8, columns: usize, span: usize, to: *mut Unpacked);
    /// Adds the products of `S` unpacked strips with `R` input rows to their totals.
    unsafe fn tile<M: Machine, const R: usize, const S: usize>(
        weights: *const Unpacked,
        columns: usize,
        span: usize,
        inputs: &Inputs,
        row: usize,
        totals: *mut [Total; S],
    );
}

/// One call of `Matrix::multiply`.
pub(super) struct Task<'a> {
    /// The first strip of the matrix, and the distance between strips.
    pub(super) start: *const u8,
    pub(super) strip_bytes: usize,
    /// Rows and columns of the matrix.
    pub(super) height: usize,
    pub(super) columns: usize,
    pub(super) inputs: &'a Inputs,
    pub(super) out: Output,
    pub(super) store: Store,
}

/// At most this many input rows go straight from the packed strips.
const FEW: usize = 16;
/// Input rows of one pass over a strip.
const PASS: usize = 8;
/// Input rows whose totals are kept at hand while a strip is unpacked once for all of them.
pub(super) const PANEL: usize = 512;

impl Task<'_> {
    /// # Safety
    /// The machine must be available and the task's matrix and output valid.
    pub(super) unsafe fn run<M: Machine, F: Family>(
        &self,
        strips: Range<usize>,
        rows: Range<usize>,
        scratch: &mut MatrixScratch,
    ) {
        // SAFETY: the caller's.
        unsafe {
            if F::DIRECT && rows.len() <= FEW {
                return self.few::<M, F>(strips, rows);
            }
            let mut first = rows.start;
            while first < rows.end {
                let panel = first..rows.end.min(first + PANEL);
                first = panel.end;
                let mut strip = strips.start;
                while M::STRIPS == 2 && strip + 2 <= strips.end {
                    self.many::<M, F, 2>(strip, panel.clone(), scratch);
                    strip += 2;
                }
                while strip < strips.end {
                    self.many::<M, F, 1>(strip, panel.clone(), scratch);
                    strip += 1;
                }
            }
        }
    }

    fn strip(&self, strip: usize) -> *const u8 {
        self.start.wrapping_add(strip * self.strip_bytes)
    }

    /// # Safety
    /// As for `run`.
    unsafe fn few<M: Machine, F: Family>(&self, strips: Range<usize>, rows: Range<usize>) {
        let mut totals = [Total([0.0; STRIP]); PASS];
        for strip in strips {
            let mut row = rows.start;
            while row < rows.end {
                let count = PASS.min(rows.end - row);
                let (weights, columns, inputs, to) =
                    (self.strip(strip), self.columns, self.inputs, totals.as_mut_ptr());
                // SAFETY: the caller's; `totals` has room for a pass.
                unsafe {
                    match count {
                        1 => F::few::<M, 1>(weights, columns, inputs, row, to),
                        2 => F::few::<M, 2>(weights, columns, inputs, row, to),
                        3 => F::few::<M, 3>(weights, columns, inputs, row, to),
                        4 => F::few::<M, 4>(weights, columns, inputs, row, to),
                        5 => F::few::<M, 5>(weights, columns, inputs, row, to),
                        6 => F::few::<M, 6>(weights, columns, inputs, row, to),
                        7 => F::few::<M, 7>(weights, columns, inputs, row, to),
                        _ => F::few::<M, 8>(weights, columns, inputs, row, to),
                    }
                    for (at, totals) in totals[..count].iter().enumerate() {
                        self.write(row + at, strip, totals);
                    }
                }
                row += count;
            }
        }
    }

    /// # Safety
    /// As for `run`.
    unsafe fn many<M: Machine, F: Family, const S: usize>(
        &self,
        strip: usize,
        rows: Range<usize>,
        scratch: &mut MatrixScratch,
    ) {
        let (weights, totals) = scratch.spans_and_totals::<S>(rows.len());
        // SAFETY: the caller's; the scratch memory is as large as asked for.
        unsafe {
            totals.write_bytes(0, rows.len());
            for span in 0..self.columns.div_ceil(F::SPAN) {
                for s in 0..S {
                    F::unpack::<M>(self.strip(strip + s), self.columns, span, weights.add(s));
                }
                let mut row = rows.start;
                while row < rows.end {
                    let count = M::ROWS.min(rows.end - row);
                    let (columns, inputs, to) = (self.columns, self.inputs, totals.add(row - rows.start));
                    match count {
                        1 => F::tile::<M, 1, S>(weights, columns, span, inputs, row, to),
                        2 => F::tile::<M, 2, S>(weights, columns, span, inputs, row, to),
                        3 => F::tile::<M, 3, S>(weights, columns, span, inputs, row, to),
                        4 => F::tile::<M, 4, S>(weights, columns, span, inputs, row, to),
                        5 => F::tile::<M, 5, S>(weights, columns, span, inputs, row, to),
                        _ => F::tile::<M, 6, S>(weights, columns, span, inputs, row, to),
                    }
                    row += count;
                }
            }
            for row in rows.clone() {
                for (s, totals) in (*totals.add(row - rows.start)).iter().enumerate() {
                    self.write(row, strip + s, totals);
                }
            }
        }
    }

    /// # Safety
    /// As for `run`.
    unsafe fn write(&self, row: usize, strip: usize, totals: &Total) {
        let column = strip * STRIP;
        let values = &totals.0[..STRIP.min(self.height - column)];
        // SAFETY: the caller's.
        unsafe { self.out.write(row, column, values, self.store) }
    }
}
