//! The running engine: a handle that any thread may use, over two threads of its own. No call on it waits for the model,
//! except `close`. Commands go in through a channel; events come out through `drain`, after one wake-up per step.
//!
//! Every accepted request gets exactly one `Finished` or `Failed`, also when the engine closes or panics.

pub mod compute;
pub mod generation;
#[cfg(test)]
mod histories;
pub mod language;
pub mod loading;
pub mod machine;
pub mod model_language;
pub mod options;
pub mod outbox;
pub mod pace;
pub mod reading;
#[cfg(test)]
pub(crate) mod scripted;
pub mod statistics;
#[cfg(test)]
mod tests;
pub mod thinking;
pub mod threads;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::executor::Executor;
use crate::executor::threads::{block_signals, stand_back};
use crate::request::GenerateRequest;
use language::{Language, check};
use machine::Machine;
pub use options::RunOptions;
use outbox::Outbox;
use statistics::Statistics;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;
use threads::{Command, Worker, read_prompts};

/// Called from the engine's thread when `drain` has something; must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

pub struct Engine {
    language: Arc<dyn Language>,
    context_length: usize,
    /// Gone once the engine is closed.
    commands: Mutex<Option<Sender<Command>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    outbox: Arc<Outbox>,
    statistics: Arc<Mutex<Statistics>>,
}

impl Engine {
    /// Starts the threads. Whoever holds the engine closes it; dropping it closes it too.
    ///
    /// # Errors
    /// `InvalidRequest` for options that the model cannot be run with.
    pub fn start(
        executor: Box<dyn Executor>,
        language: Arc<dyn Language>,
        options: RunOptions,
        wake: Wake,
    ) -> Result<Self> {
        options.check(&*executor)?;
        let context_length = executor.context_length();
        let (commands, received) = channel();
        let (reader, requests) = channel();
        let outbox = Arc::new(Outbox::new(wake));
        let statistics = Arc::new(Mutex::default());
        let clock = Box::new(Instant::now);
        let worker = Worker {
            machine: Machine::new(executor, Arc::clone(&language), options, clock),
            commands: received,
            reader,
            outbox: Arc::clone(&outbox),
            statistics: Arc::clone(&statistics),
        };
        let (reading, answers) = (Arc::clone(&language), commands.clone());
        let threads = vec![
            spawn("quiver-engine", move || {
                // It computes as one of the executor's threads.
                stand_back();
                worker.run();
            })?,
            spawn("quiver-reader", move || read_prompts(&*reading, &requests, &answers))?,
        ];
        Ok(Self {
            language,
            context_length,
            commands: Mutex::new(Some(commands)),
            threads: Mutex::new(threads),
            outbox,
            statistics,
        })
    }

    /// Accepts a request under a number that the caller has not used before. Refuses what cannot be computed.
    pub fn submit(&self, id: u64, request: GenerateRequest) -> Result<()> {
        request.check()?;
        check(&request, &*self.language, self.context_length)?;
        self.send(Command::Submit { id, request: Box::new(request), submitted: Instant::now() })
    }

    /// Ends a request within one step. Ignored if it is unknown, or the engine closed.
    pub fn cancel(&self, id: u64) {
        let _ = self.send(Command::Cancel { id });
    }

    /// The client has taken `tokens` tokens of the answer in total. Ignored as in `cancel`.
    pub fn acknowledge(&self, id: u64, tokens: u32) {
        let _ = self.send(Command::Acknowledge { id, tokens });
    }

    /// Takes all events that wait. After a wake-up it must be called, or no other wake-up comes.
    pub fn drain(&self) -> Vec<Event> {
        self.outbox.drain()
    }

    pub fn statistics(&self) -> Statistics {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the current step and then the threads. Open requests fail; `drain` still gives their events.
    pub fn close(&self) {
        if let Some(commands) = self.commands.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = commands.send(Command::Close);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// The lock orders every command before `Close`: none is lost behind it.
    fn send(&self, command: Command) -> Result<()> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.as_ref().ok_or(Error::Stopped)?.send(command).map_err(|_| Error::Stopped)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new()
        .name(name.to_owned())
        .spawn(|| {
            block_signals();
            run();
        })
        .map_err(|error| Error::Internal(format!("cannot start a thread: {error}")))
}
