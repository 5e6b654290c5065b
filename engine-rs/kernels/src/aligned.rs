//! A buffer of floats that starts on a cache line, so that no full-width load of it crosses one.

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Keeps its memory from use to use.
#[derive(Debug, Default)]
pub(crate) struct Floats(Vec<Line>);

impl Floats {
    /// Room for `count` floats; what they hold is left over from earlier uses.
    pub(crate) fn room(&mut self, count: usize) -> *mut f32 {
        let lines = count.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        self.0.as_mut_ptr().cast()
    }
}
