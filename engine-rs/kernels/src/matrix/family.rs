//! What the kinds of weights have in common, and the two ways through a product: a few input rows straight from the
//! packed strips, which reads the weights once and is as fast as memory; many rows by register tiles on weights that are
//! unpacked span by span. Both give the same bits.

use super::inputs::{Format, Inputs};
use super::machine::Machine;
use super::scratch::MatrixScratch;
use crate::output::Output;
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

/// Some strips of a matrix, `distance` bytes apart.
#[derive(Clone, Copy)]
pub(super) struct Strips {
    pub(super) start: *const u8,
    pub(super) distance: usize,
    pub(super) count: usize,
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
    /// Adds the products of a few strips with `R` input rows to their totals.
    unsafe fn few<M: Machine, const R: usize>(
        strips: Strips,
        columns: usize,
        inputs: &Inputs,
        row: usize,
        totals: *mut [Total; R],
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
}

/// At most this many input rows go straight from the packed strips.
const FEW: usize = 16;
/// Input rows whose totals are kept at hand while a strip is unpacked once for all of them.
pub(super) const PANEL: usize = 512;
/// Strips, or pairs of them, that a span of inputs is multiplied with before the next: of a few rows it stays in the
/// first-level cache, of a panel in the second-level one (170 KB, and 256 KB of totals).
pub(super) const GROUP: usize = 4;

/// Strips that are taken together: `count` of them, `step` apart.
#[derive(Clone, Copy)]
struct Group {
    strip: usize,
    step: usize,
    count: usize,
}

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
                    let tiles = GROUP.min((strips.end - strip) / 2);
                    self.many::<M, F, 2>(strip, tiles, panel.clone(), scratch);
                    strip += 2 * tiles;
                }
                while strip < strips.end {
                    let tiles = GROUP.min(strips.end - strip);
                    self.many::<M, F, 1>(strip, tiles, panel.clone(), scratch);
                    strip += tiles;
                }
            }
        }
    }

    fn strip(&self, strip: usize) -> *const u8 {
        self.start.wrapping_add(strip * self.strip_bytes)
    }

    /// Strips are taken in groups whose members lie a share of all of them apart, so that memory is read as several long
    /// streams: each member's successor in the next group follows it directly.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn few<M: Machine, F: Family>(&self, strips: Range<usize>, rows: Range<usize>) {
        let step = strips.len() / GROUP;
        let rest = strips.start + step * GROUP;
        // SAFETY: the caller's.
        unsafe {
            for strip in strips.start..strips.start + step {
                self.group::<M, F>(Group { strip, step, count: GROUP }, rows.clone());
            }
            if rest < strips.end {
                self.group::<M, F>(Group { strip: rest, step: 1, count: strips.end - rest }, rows);
            }
        }
    }

    /// # Safety
    /// As for `run`.
    unsafe fn group<M: Machine, F: Family>(&self, group: Group, rows: Range<usize>) {
        let mut row = rows.start;
        while row < rows.end {
            let pass = M::PASS.min(rows.end - row);
            // SAFETY: the caller's.
            unsafe {
                match pass {
                    1 => self.pass::<M, F, 1>(group, row),
                    2 => self.pass::<M, F, 2>(group, row),
                    3 => self.pass::<M, F, 3>(group, row),
                    4 => self.pass::<M, F, 4>(group, row),
                    5 => self.pass::<M, F, 5>(group, row),
                    6 => self.pass::<M, F, 6>(group, row),
                    7 => self.pass::<M, F, 7>(group, row),
                    _ => self.pass::<M, F, 8>(group, row),
                }
            }
            row += pass;
        }
    }

    /// `R` input rows times a group of strips.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn pass<M: Machine, F: Family, const R: usize>(&self, group: Group, row: usize) {
        let Group { strip, step, count } = group;
        let mut totals = [[Total([0.0; STRIP]); R]; GROUP];
        let strips = Strips { start: self.strip(strip), distance: step * self.strip_bytes, count };
        // SAFETY: the caller's; there are totals for each strip of a group.
        unsafe {
            F::few::<M, R>(strips, self.columns, self.inputs, row, totals.as_mut_ptr());
            for (s, totals) in totals[..count].iter().enumerate() {
                for (r, total) in totals.iter().enumerate() {
                    self.write(row + r, strip + s * step, total);
                }
            }
        }
    }

    /// Products of `tiles` times `S` strips.
    ///
    /// # Safety
    /// As for `run`.
    unsafe fn many<M: Machine, F: Family, const S: usize>(
        &self,
        strip: usize,
        tiles: usize,
        rows: Range<usize>,
        scratch: &mut MatrixScratch,
    ) {
        let (weights, totals) = scratch.spans_and_totals::<S>(tiles * rows.len());
        // SAFETY: the caller's; the scratch memory is as large as asked for.
        unsafe {
            totals.write_bytes(0, tiles * rows.len());
            for span in 0..self.columns.div_ceil(F::SPAN) {
                for tile in 0..tiles {
                    for s in 0..S {
                        F::unpack::<M>(self.strip(strip + tile * S + s), self.columns, span, weights.add(s));
                    }
                    self.add_span::<M, F, S>(weights, span, rows.clone(), totals.add(tile * rows.len()));
                }
            }
            for tile in 0..tiles {
                for (at, row) in rows.clone().enumerate() {
                    for (s, totals) in (*totals.add(tile * rows.len() + at)).iter().enumerate() {
                        self.write(row, strip + tile * S + s, totals);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for `run`.
    unsafe fn add_span<M: Machine, F: Family, const S: usize>(
        &self,
        weights: *const Unpacked,
        span: usize,
        rows: Range<usize>,
        totals: *mut [Total; S],
    ) {
        let (columns, inputs) = (self.columns, self.inputs);
        let mut row = rows.start;
        while row < rows.end {
            let count = M::ROWS.min(rows.end - row);
            // SAFETY: the caller's.
            unsafe {
                let to = totals.add(row - rows.start);
                match count {
                    1 => F::tile::<M, 1, S>(weights, columns, span, inputs, row, to),
                    2 => F::tile::<M, 2, S>(weights, columns, span, inputs, row, to),
                    3 => F::tile::<M, 3, S>(weights, columns, span, inputs, row, to),
                    4 => F::tile::<M, 4, S>(weights, columns, span, inputs, row, to),
                    5 => F::tile::<M, 5, S>(weights, columns, span, inputs, row, to),
                    _ => F::tile::<M, 6, S>(weights, columns, span, inputs, row, to),
                }
            }
            row += count;
        }
    }

    /// # Safety
    /// As for `run`.
    unsafe fn write(&self, row: usize, strip: usize, totals: &Total) {
        let column = strip * STRIP;
        let values = &totals.0[..STRIP.min(self.height - column)];
        // SAFETY: the caller's.
        unsafe { self.out.write(row, column, values) }
    }
}
