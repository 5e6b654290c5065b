//! The threads that compute for the fused executor: a job is a number of tasks, and `run` returns when all are done. The
//! caller works too, so a pool of one thread has no workers. A decoded token takes some hundred jobs of a few dozen
//! microseconds each: workers spin that long for the next job and then sleep, so that an idle engine costs nothing and a
//! busy one leaves the processor to the event loop whenever it has nothing to do.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::threads::stand_back;
use crate::error::{Error, Result};

/// How long a worker waits awake for the next job; the gaps between the jobs of one step are shorter.
const AWAKE: Duration = Duration::from_micros(40);
/// Turns of the waiting loop between two looks at the clock.
const TURNS: usize = 64;

/// `work(task, thread)`: threads are numbered from 0, the caller's number is 0.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Grows by one with each job: what workers wait for.
    jobs: AtomicUsize,
    job: UnsafeCell<Job>,
    /// The next task of the job that nobody has taken.
    next: AtomicUsize,
    /// Workers that have not finished with the job.
    busy: AtomicUsize,
    panicked: AtomicBool,
    closing: AtomicBool,
    asleep: AtomicUsize,
    bed: Mutex<()>,
    morning: Condvar,
}

#[derive(Clone, Copy)]
struct Job {
    tasks: usize,
    /// Lives until `run` returns, and no longer.
    work: Option<&'static Work<'static>>,
}

// SAFETY: `job` is written only by `run`, which holds `&mut Pool`, while no worker is busy; `jobs` orders that write before
// the workers' reads and `busy` orders those before the next write.
unsafe impl Sync for Shared {}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 for one per processor.
    ///
    /// # Errors
    /// `Internal` where the system starts no more threads.
    pub fn new(threads: usize) -> Result<Pool> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { available() } else { threads };
        let shared = Arc::new(Shared {
            jobs: AtomicUsize::new(0),
            job: UnsafeCell::new(Job { tasks: 0, work: None }),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            morning: Condvar::new(),
        });
        let mut pool = Pool { shared, workers: Vec::with_capacity(threads - 1) };
        for number in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new().name(format!("quiver-compute-{number}")).spawn(move || {
                stand_back();
                shared.serve(number);
            });
            let thread = thread.map_err(|error| Error::Internal(format!("cannot start a compute thread: {error}")))?;
            pool.workers.push(thread);
        }
        Ok(pool)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(task, thread)` once for each task below `tasks`, on all threads, and returns when all have ended. A
    /// panic in a task is raised again here, after the others have ended.
    pub fn run(&mut self, tasks: usize, work: &Work<'_>) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(|task| work(task, 0));
            return;
        }
        // SAFETY: only the lifetime changes, and no worker uses the reference after this function has returned: it waits
        // for `busy` to be 0 on every path, also when a task panics.
        let work: &'static Work<'static> = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        let shared = &*self.shared;
        // SAFETY: see `Sync for Shared`: the last job has ended.
        unsafe { *shared.job.get() = Job { tasks, work: Some(work) } };
        shared.next.store(0, Ordering::Relaxed);
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.jobs.fetch_add(1, Ordering::SeqCst);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            let _bed = shared.bed.lock().unwrap_or_else(PoisonError::into_inner);
            shared.morning.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(tasks, work, 0)));
        let mut turns = 0usize;
        while shared.busy.load(Ordering::Acquire) > 0 {
            turns = turns.wrapping_add(1);
            // A worker that lost its processor to another thread gets it back sooner so.
            if turns.is_multiple_of(TURNS * 16) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let failed = shared.panicked.swap(false, Ordering::Relaxed);
        match own {
            Err(panic) => resume_unwind(panic),
            Ok(()) if failed => panic!("a compute thread panicked"),
            Ok(()) => {}
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.jobs.fetch_add(1, Ordering::SeqCst);
        drop(self.shared.bed.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.morning.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// A worker's life.
    fn serve(&self, number: usize) {
        let mut seen = 0;
        loop {
            self.wait_after(seen);
            seen = self.jobs.load(Ordering::Acquire);
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            // SAFETY: see `Sync for Shared`: the job was written before `jobs` grew.
            let Job { tasks, work } = unsafe { *self.job.get() };
            if let Some(work) = work
                && catch_unwind(AssertUnwindSafe(|| self.take_tasks(tasks, work, number))).is_err()
            {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Takes task after task until none is left.
    fn take_tasks(&self, tasks: usize, work: &Work<'_>, thread: usize) {
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            work(task, thread);
        }
    }

    /// Returns when there has been a job after the `seen`th: awake for a while, then asleep.
    fn wait_after(&self, seen: usize) {
        let began = Instant::now();
        while began.elapsed() < AWAKE {
            for _ in 0..TURNS {
                if self.jobs.load(Ordering::Acquire) != seen {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.fetch_add(1, Ordering::SeqCst);
        while self.jobs.load(Ordering::SeqCst) == seen {
            bed = self.morning.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.asleep.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task, thread| {
                    assert!(thread < threads);
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn sleeping_workers_wake() {
        let mut pool = Pool::new(3).unwrap();
        let done = AtomicUsize::new(0);
        for _ in 0..20 {
            std::thread::sleep(AWAKE * 4);
            pool.run(3, &|_, _| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(done.load(Ordering::Relaxed), 60);
    }

    #[test]
    fn many_small_jobs_end() {
        let mut pool = Pool::new(2).unwrap();
        let done = AtomicUsize::new(0);
        for _ in 0..20_000 {
            pool.run(2, &|_, _| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(done.load(Ordering::Relaxed), 40_000);
    }

    #[test]
    fn panics_reach_the_caller() {
        let mut pool = Pool::new(2).unwrap();
        for round in 0..10 {
            let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|task, _| assert_ne!(task, round % 8))));
            assert!(outcome.is_err());
        }
        let done = AtomicUsize::new(0);
        pool.run(8, &|_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 8);
    }
}
