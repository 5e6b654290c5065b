//! The engine's two threads. The worker owns the machine: it takes commands between steps, and sleeps when there is
//! nothing to do. The reader turns prompts into tokens, so that a long one does not hold up the streams.

use super::compute::guarded;
use super::language::Language;
use super::machine::Machine;
use super::outbox::Outbox;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::request::GenerateRequest;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub enum Command {
    Submit {
        id: u64,
        request: Box<GenerateRequest>,
        submitted: Instant,
    },
    Ready {
        id: u64,
        request: Box<GenerateRequest>,
        prompt: Result<Vec<u32>>,
    },
    Cancel {
        id: u64,
    },
    Acknowledge {
        id: u64,
        tokens: u32,
    },
    /// The last one: open requests fail.
    Close,
}

pub type Reading = (u64, Box<GenerateRequest>);

pub struct Worker {
    pub machine: Machine,
    pub commands: Receiver<Command>,
    pub reader: Sender<Reading>,
    pub outbox: Arc<Outbox>,
    pub statistics: Arc<Mutex<Statistics>>,
}

impl Worker {
    /// Runs until told to close.
    pub fn run(mut self) {
        let mut busy = false;
        loop {
            let next =
                if busy { self.commands.try_recv().ok() } else { self.commands.recv().ok().or(Some(Command::Close)) };
            if let Some(command) = next {
                if let Command::Close = command {
                    break;
                }
                self.guard(|worker| worker.obey(command));
                // All commands that are there come before the next step.
                busy = true;
                continue;
            }
            self.publish();
            busy = self.guard(|worker| worker.machine.step());
            self.publish();
        }
        self.machine.fail_all(&Error::Stopped);
        self.publish();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit { id, request, submitted } => {
                self.machine.open(id, submitted);
                if self.reader.send((id, request)).is_err() {
                    self.machine.cancel(id);
                }
            }
            Command::Ready { id, request, prompt } => self.machine.ready(id, *request, prompt),
            Command::Cancel { id } => self.machine.cancel(id),
            Command::Acknowledge { id, tokens } => self.machine.acknowledge(id, tokens),
            Command::Close => {}
        }
    }

    /// A panic that no request can be blamed for ends them all; the engine goes on.
    fn guard<T: Default>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        guarded(|| Ok(act(self))).unwrap_or_else(|error| {
            self.machine.fail_all(&error);
            T::default()
        })
    }

    /// Figures first: who has seen a request end finds it gone from them.
    fn publish(&mut self) {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = self.machine.statistics();
        self.outbox.push(&mut self.machine.events);
    }
}

/// Reads prompts until the worker is gone.
pub fn read_prompts(language: &dyn Language, requests: &Receiver<Reading>, commands: &Sender<Command>) {
    for (id, request) in requests {
        let prompt = guarded(|| language.read(&request));
        if commands.send(Command::Ready { id, request, prompt }).is_err() {
            return;
        }
    }
}
