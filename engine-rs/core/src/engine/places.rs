//! Who holds a place in the executor: running requests, and finished ones that are kept for a next turn. The only part
//! of the engine that calls the executor, so that a panic in it is caught in one place.

use super::kept::Kept;
use crate::error::{Error, Result};
use crate::executor::{Chunk, Executor, Logits, SeqId, Want};
use crate::scheduler::Scheduler;
use crate::scheduler::share::Row;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub struct Places {
    executor: Box<dyn Executor>,
    /// The executor's number for each running request. A kept sequence passes its own on.
    seats: BTreeMap<u64, SeqId>,
    last_seat: SeqId,
    kept: Kept,
}

impl Places {
    /// `kept_tokens` bounds what finished requests leave behind.
    pub fn new(executor: Box<dyn Executor>, kept_tokens: usize) -> Self {
        Self { executor, seats: BTreeMap::new(), last_seat: 0, kept: Kept::new(kept_tokens) }
    }

    pub fn context_length(&self) -> usize {
        self.executor.context_length()
    }

    /// Gives a request a place: that of a kept sequence which begins like it, or an empty one. Returns how many of its
    /// tokens are computed already.
    pub fn enter(&mut self, id: u64, scope: &str, tokens: &[u32]) -> usize {
        if let Some((seat, computed)) = self.kept.take(scope, tokens) {
            self.executor.truncate(seat, computed);
            self.seats.insert(id, seat);
            return computed;
        }
        self.last_seat += 1;
        self.seats.insert(id, self.last_seat);
        0
    }

    /// Takes a request's place. Requests that have none are ignored.
    pub fn leave(&mut self, id: u64) {
        if let Some(seat) = self.seats.remove(&id) {
            self.release(seat);
        }
    }

    /// Ends a request, of which `tokens` are computed; they may be of use to a next one.
    pub fn keep(&mut self, id: u64, scope: &str, tokens: Vec<u32>) {
        if let Some(seat) = self.seats.remove(&id) {
            for seat in self.kept.keep(seat, scope.to_owned(), tokens) {
                self.release(seat);
            }
        }
    }

    /// Frees the memory of one kept sequence; false if there is none.
    pub fn give_up(&mut self) -> bool {
        let given_up = self.kept.give_up();
        if let Some(seat) = given_up {
            self.release(seat);
        }
        given_up.is_some()
    }

    /// Runs rows through the executor: a row of logits for each that samples. A panic is an error like any other.
    pub fn step(&mut self, rows: &[Row], scheduler: &Scheduler) -> Result<Logits> {
        let seats = &self.seats;
        let chunks: Vec<Chunk<'_>> = rows
            .iter()
            .map(|row| Chunk {
                seq: seats.get(&row.id).copied().unwrap_or_default(),
                start: row.start,
                tokens: scheduler.tokens(row),
                want: if row.samples { Want::Last } else { Want::Nothing },
            })
            .collect();
        let logits = guarded(|| self.executor.step(&chunks))?;
        let wanted = rows.iter().filter(|row| row.samples).count();
        if logits.rows.len() != wanted * logits.vocab {
            let numbers = logits.rows.len();
            let message = format!("{wanted} rows of logits wanted, {numbers} numbers came");
            return Err(Error::Internal(message));
        }
        Ok(logits)
    }

    /// A failed step: the sequences are as they were before it.
    pub fn rewind(&mut self, rows: &[Row]) {
        for row in rows {
            if let Some(seat) = self.seats.get(&row.id) {
                self.executor.truncate(*seat, row.start);
            }
        }
    }

    /// Sequences of requests that are not finished.
    pub fn live(&self) -> usize {
        let all = self.executor.live_sequences();
        all.saturating_sub(self.kept.len())
    }

    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    pub fn kv_bytes(&self) -> usize {
        self.executor.kv_bytes()
    }

    fn release(&mut self, seat: SeqId) {
        // A broken executor must not keep the request's end from its client.
        let _ = guarded(|| {
            self.executor.release(seat);
            Ok(())
        });
    }
}

/// Calls `act`, and turns a panic in it into an error. What `act` changes must bear being left half done: the caller
/// drops it.
pub fn guarded<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::Internal(format!("panic: {text}")))
    })
}
