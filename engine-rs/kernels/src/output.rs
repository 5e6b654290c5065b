//! Where a kernel puts its results.

/// Rows of results: element `column` of row `row` lies at `start + row * stride + column`. Several threads may hold
/// copies as long as they write different elements.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    start: *mut f32,
    stride: usize,
}

// SAFETY: whoever makes an `Output` promises that its users write different elements.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// # Safety
    /// Every row that a kernel is told to write must be valid for writes while the `Output` or a copy is in use, and no
    /// element may be written by two threads, or read before they are done.
    pub unsafe fn new(start: *mut f32, stride: usize) -> Output {
        Output { start, stride }
    }

    /// # Safety
    /// The row must be one of those that `new` was promised.
    #[inline(always)]
    pub(crate) unsafe fn row(self, row: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(row * self.stride) }
    }
}
