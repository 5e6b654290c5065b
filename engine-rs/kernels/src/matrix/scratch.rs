//! Working memory of one thread's products.

use super::family::{GROUP, PANEL, Total, Unpacked};
use super::memory::Buffer;

/// Working memory for `Matrix::multiply`, one for each thread. It grows at the first use and is kept.
#[derive(Debug, Default)]
pub struct MatrixScratch {
    spans: Buffer,
    totals: Buffer,
}

impl MatrixScratch {
    /// Room for `S` unpacked spans, and for the totals of `rows` input rows with as many strips.
    pub(super) fn spans_and_totals<const S: usize>(&mut self, rows: usize) -> (*mut Unpacked, *mut [Total; S]) {
        debug_assert!(rows <= GROUP * PANEL);
        self.spans.reserve(S * size_of::<Unpacked>());
        self.totals.reserve(rows * size_of::<[Total; S]>());
        (self.spans.start().cast(), self.totals.start().cast())
    }
}
