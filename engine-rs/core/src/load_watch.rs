//! What a load tells of itself while it runs, and how it is stopped: a few atomics that the loading thread writes and any
//! other reads.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

/// What a load is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The file's header and metadata.
    Header,
    Vocabulary,
    Weights,
    /// Threads, and what is left once the weights are there.
    Start,
}

const STAGES: [Stage; 4] = [Stage::Header, Stage::Vocabulary, Stage::Weights, Stage::Start];

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Header => "header",
            Stage::Vocabulary => "vocabulary",
            Stage::Weights => "weights",
            Stage::Start => "start",
        }
    }
}

/// One load, watched from outside. Figures may be a moment old, which is all that those who look need.
#[derive(Debug, Default)]
pub struct LoadWatch {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl LoadWatch {
    /// Goes on to `stage`.
    ///
    /// # Errors
    /// `LoadCancelled`.
    pub fn enter(&self, stage: Stage) -> Result<()> {
        self.stage.store(stage as u8, Relaxed);
        self.check()
    }

    /// Says how many bytes of weights there are.
    pub fn expect(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    /// So many more bytes of weights are in place. Threads may share the work.
    pub fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// The load is to end at its next look.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// # Errors
    /// `LoadCancelled` once somebody has cancelled it.
    pub fn check(&self) -> Result<()> {
        if self.cancelled() { Err(Error::LoadCancelled) } else { Ok(()) }
    }

    pub fn stage(&self) -> Stage {
        STAGES[usize::from(self.stage.load(Relaxed)).min(STAGES.len() - 1)]
    }

    /// Bytes of weights that are in place, and those of the whole model: 0 while that is not known. Tensors that two
    /// parts of a model share are counted once.
    pub fn bytes(&self) -> (u64, u64) {
        let total = self.total.load(Relaxed);
        (self.done.load(Relaxed).min(total), total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_was_told() {
        let watch = LoadWatch::default();
        assert_eq!((watch.stage(), watch.bytes()), (Stage::Header, (0, 0)));
        watch.expect(100);
        watch.enter(Stage::Weights).unwrap();
        watch.advance(60);
        assert_eq!((watch.stage().name(), watch.bytes()), ("weights", (60, 100)));
        watch.advance(60);
        assert_eq!(watch.bytes(), (100, 100));
    }

    #[test]
    fn cancelled_loads_go_no_further() {
        let watch = LoadWatch::default();
        assert!(watch.check().is_ok());
        watch.cancel();
        assert!(watch.cancelled());
        assert!(matches!(watch.enter(Stage::Weights), Err(Error::LoadCancelled)));
    }
}
