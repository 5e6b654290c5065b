//! Runs the interpreter of templates where its failures end the template and nothing else. minijinja 3.0 recurses
//! without bound on deeply nested values and expressions, takes quadratic time for some sums of lists, and panics where
//! Python has a result, as on `[][::-1]`. On the engine's thread each of these would end or halt every conversation.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Enough for the deepest value that the fuel pays for and for the longest source. Reserved, not used: pages that no
/// template reaches cost nothing.
const STACK: usize = 256 << 20;

/// Where templates run. A caller leaves at most one piece of work behind.
pub struct Sandbox {
    limit: Duration,
    /// Work that was left behind, while it lives.
    runaway: Mutex<Weak<()>>,
}

impl Sandbox {
    /// Leaves work behind that takes longer than `limit`.
    pub fn new(limit: Duration) -> Self {
        Sandbox { limit, runaway: Mutex::new(Weak::new()) }
    }

    /// `work` on a thread of its own with a deep stack. It cannot be stopped; when it takes too long the caller goes on
    /// without it, and further work is refused until it has ended.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.runaway().strong_count() > 0 {
            return failed("an earlier conversation still keeps the template busy".to_owned());
        }
        let life = Arc::new(());
        let watch = Arc::downgrade(&life);
        let (sender, receiver) = mpsc::sync_channel(1);
        let builder = thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        let spawned = builder.spawn(move || {
            // Dropped in reverse order, also in a panic: who hears of the end finds the life ended.
            let (sender, life) = (sender, life);
            let result = work();
            drop(life);
            // Nobody listens when the time was up.
            let _ = sender.send(result);
        });
        if let Err(error) = spawned {
            return failed(format!("no thread to run it: {error}"));
        }
        match receiver.recv_timeout(self.limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                *self.runaway() = watch;
                failed(format!("takes longer than {:?}", self.limit))
            }
            Err(RecvTimeoutError::Disconnected) => failed("the interpreter of templates failed".to_owned()),
        }
    }

    fn runaway(&self) -> MutexGuard<'_, Weak<()>> {
        self.runaway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed<T>(why: String) -> Result<T> {
    Err(Error::Template(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_results_and_failures_on() {
        let sandbox = Sandbox::new(Duration::from_secs(60));
        assert_eq!(sandbox.run(|| Ok(1)).unwrap(), 1);
        assert!(sandbox.run(|| failed::<()>("x".to_owned())).unwrap_err().to_string().ends_with(": x"));
        let panicked = sandbox.run(|| -> Result<()> { panic!("on purpose") });
        assert!(panicked.unwrap_err().to_string().contains("interpreter"));
        assert_eq!(sandbox.run(|| Ok(2)).unwrap(), 2);
    }

    #[test]
    fn leaves_one_piece_of_work_behind_at_most() {
        let sandbox = Sandbox::new(Duration::ZERO);
        let (release, held) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let late = sandbox.run(move || {
            let _ended = ended;
            let _ = held.recv();
            Ok(())
        });
        assert!(late.unwrap_err().to_string().contains("takes longer"));
        assert!(sandbox.run(|| Ok(())).unwrap_err().to_string().contains("busy"));
        drop(release);
        assert!(end.recv().is_err());
    }

    #[test]
    fn has_a_deep_stack() {
        fn depth(left: u32) -> u32 {
            std::hint::black_box(if left == 0 { 0 } else { 1 + depth(left - 1) })
        }
        assert_eq!(Sandbox::new(Duration::from_secs(60)).run(|| Ok(depth(1_000_000))).unwrap(), 1_000_000);
    }
}
