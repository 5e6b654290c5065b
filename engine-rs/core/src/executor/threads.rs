//! The threads that compute. They take no signals, so that those reach the thread that handles them, and on Linux they
//! run at a slightly lower priority, so that a process that computes on all processors still answers its connections.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Niceness above the process's own: enough to let a woken event loop go first, too little to starve beside other work.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = 5;

/// A pool of `threads` threads, or one per processor for 0.
pub(crate) fn pool(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|number| format!("quiver-compute-{number}"))
        .start_handler(|_| stand_back())
        .build()
        .map_err(|error| Error::Internal(format!("cannot start the compute threads: {error}")))
}

/// Leaves signals to the other threads of the process: the one that handles them must be the one that gets them.
#[cfg(unix)]
pub(crate) fn block_signals() {
    // SAFETY: a zeroed set is a valid place for `sigfillset` to write, and the mask is this thread's own.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        // Faults are delivered where they happen; a blocked one would end the process without a word.
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
            libc::sigdelset(&mut all, fault);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}

#[cfg(not(unix))]
pub(crate) fn block_signals() {}

#[cfg(unix)]
pub(crate) fn stand_back() {
    block_signals();
    #[cfg(target_os = "linux")]
    // SAFETY: plain system call; on Linux id 0 is the calling thread. Failing to be nice is no failure.
    unsafe {
        let current = libc::getpriority(libc::PRIO_PROCESS, 0);
        libc::setpriority(libc::PRIO_PROCESS, 0, current + NICENESS);
    }
}

#[cfg(not(unix))]
pub(crate) fn stand_back() {}
