//! Memory aligned to cache lines, for weights and inputs. Its allocation may fail, because weights are the largest thing
//! there is; what is in it is up to its owner.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// A cache line, and the widest vector.
pub(super) const LINE: usize = 64;

/// There is no memory for `bytes` more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory {
    pub bytes: usize,
}

impl std::fmt::Display for NoMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no memory for {} bytes of weights", self.bytes)
    }
}

impl std::error::Error for NoMemory {}

/// A zeroed allocation that starts on a cache line. Shared by reference between threads, which must agree on who writes.
#[derive(Debug)]
pub(super) struct Aligned {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory with one owner; whoever writes through `start` vouches that nobody else uses that part.
unsafe impl Send for Aligned {}
// SAFETY: as above.
unsafe impl Sync for Aligned {}

impl Aligned {
    pub(super) fn zeroed(bytes: usize) -> Result<Aligned, NoMemory> {
        let layout = Layout::from_size_align(bytes.max(LINE), LINE).map_err(|_| NoMemory { bytes })?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(NoMemory { bytes })?;
        Ok(Aligned { start, layout })
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(super) fn bytes(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated by `zeroed` with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// An `Aligned` that grows and is never given back.
#[derive(Debug, Default)]
pub(super) struct Buffer(Option<Aligned>);

impl Buffer {
    /// Room for at least `bytes`; what was there is lost if it has to grow.
    ///
    /// # Panics
    /// Where there is no memory: an abort would end every request, a panic ends the step.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if self.0.as_ref().is_none_or(|held| held.bytes() < bytes) {
            self.0 = None;
            match Aligned::zeroed(bytes) {
                Ok(grown) => self.0 = Some(grown),
                Err(_) => panic!("no memory for {bytes} bytes of inputs"),
            }
        }
    }

    /// Null while nothing was reserved.
    pub(super) fn start(&self) -> *mut u8 {
        self.0.as_ref().map_or(std::ptr::null_mut(), Aligned::start)
    }
}
