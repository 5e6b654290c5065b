//! Where a kernel puts its results.

/// Results as rows of floats: `start[row * stride + column]`. Several threads write disjoint parts through copies of it.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    start: *mut f32,
    stride: usize,
}

// SAFETY: whoever makes an `Output` vouches that its parts are written by one thread at a time.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// # Safety
    /// Every row and column that is later written through it must lie in valid memory, and no two threads may write the
    /// same one at a time.
    pub unsafe fn new(start: *mut f32, stride: usize) -> Output {
        Output { start, stride }
    }

    /// The same rows from `columns` columns on.
    ///
    /// # Safety
    /// As for `new`.
    pub unsafe fn offset(self, columns: usize) -> Output {
        // SAFETY: the caller vouches for the place.
        Output { start: unsafe { self.start.add(columns) }, stride: self.stride }
    }

    /// # Safety
    /// As for `new`.
    #[inline(always)]
    pub(crate) unsafe fn row(self, row: usize) -> *mut f32 {
        // SAFETY: the caller vouches for the place.
        unsafe { self.start.add(row * self.stride) }
    }

    /// # Safety
    /// As for `new`.
    #[inline(always)]
    pub(crate) unsafe fn write(self, row: usize, column: usize, values: &[f32]) {
        // SAFETY: the caller vouches for the place, which is not `values`.
        unsafe { self.row(row).add(column).copy_from_nonoverlapping(values.as_ptr(), values.len()) }
    }
}
