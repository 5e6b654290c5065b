//! Runs what strangers wrote - templates, grammars - where its failures end one request and nothing else. minijinja 3.0
//! recurses without bound on deeply nested values and expressions, takes quadratic time for some sums of lists, and panics
//! where Python has a result, as on `[][::-1]`; compilers of schemas and regular expressions have such inputs too. On the
//! engine's thread each of these would end or halt every conversation.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Enough for the deepest value that a template's fuel pays for and for the longest source. Reserved, not used: pages
/// that no work reaches cost nothing.
const STACK: usize = 256 << 20;

/// Where such work runs. A caller leaves at most one piece of work behind.
pub struct Sandbox {
    limit: Duration,
    /// What runs here, for people: `template`.
    name: &'static str,
    /// Makes a failure of the sandbox an error of its owner's kind.
    error: fn(String) -> Error,
    /// Work that was left behind, while it lives.
    runaway: Mutex<Weak<()>>,
}

impl Sandbox {
    /// Leaves work behind that takes longer than `limit`.
    pub fn new(name: &'static str, limit: Duration, error: fn(String) -> Error) -> Self {
        Sandbox { limit, name, error, runaway: Mutex::new(Weak::new()) }
    }

    /// `work` on a thread of its own with a deep stack. It cannot be stopped; when it takes too long the caller goes on
    /// without it, and further work is refused until it has ended.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.runaway().strong_count() > 0 {
            return self.failed(format!("an earlier request still keeps the {} busy", self.name));
        }
        let life = Arc::new(());
        let watch = Arc::downgrade(&life);
        let (sender, receiver) = mpsc::sync_channel(1);
        let builder = thread::Builder::new().name(self.name.to_owned()).stack_size(STACK);
        let spawned = builder.spawn(move || {
            // Dropped in reverse order, also in a panic: who hears of the end finds the life ended.
            let (sender, life) = (sender, life);
            let result = work();
            drop(life);
            // Nobody listens when the time was up.
            let _ = sender.send(result);
        });
        if let Err(error) = spawned {
            return self.failed(format!("no thread to run it: {error}"));
        }
        match receiver.recv_timeout(self.limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                *self.runaway() = watch;
                self.failed(format!("takes longer than {:?}", self.limit))
            }
            Err(RecvTimeoutError::Disconnected) => self.failed("its interpreter failed".to_owned()),
        }
    }

    fn failed<T>(&self, why: String) -> Result<T> {
        Err((self.error)(why))
    }

    fn runaway(&self) -> MutexGuard<'_, Weak<()>> {
        self.runaway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(limit: Duration) -> Sandbox {
        Sandbox::new("work", limit, Error::Template)
    }

    #[test]
    fn passes_results_and_failures_on() {
        let place = sandbox(Duration::from_secs(60));
        assert_eq!(place.run(|| Ok(1)).unwrap(), 1);
        assert!(place.run(|| Err::<(), _>(Error::Template("x".to_owned()))).unwrap_err().to_string().ends_with(": x"));
        let panicked = place.run(|| -> Result<()> { panic!("on purpose") });
        assert!(panicked.unwrap_err().to_string().contains("interpreter"));
        assert_eq!(place.run(|| Ok(2)).unwrap(), 2);
    }

    #[test]
    fn leaves_one_piece_of_work_behind_at_most() {
        let place = sandbox(Duration::ZERO);
        let (release, held) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let late = place.run(move || {
            let _ended = ended;
            let _ = held.recv();
            Ok(())
        });
        assert!(late.unwrap_err().to_string().contains("takes longer"));
        assert!(place.run(|| Ok(())).unwrap_err().to_string().contains("busy"));
        drop(release);
        assert!(end.recv().is_err());
    }

    #[test]
    fn has_a_deep_stack() {
        fn depth(left: u32) -> u32 {
            std::hint::black_box(if left == 0 { 0 } else { 1 + depth(left - 1) })
        }
        assert_eq!(sandbox(Duration::from_secs(60)).run(|| Ok(depth(1_000_000))).unwrap(), 1_000_000);
    }
}
