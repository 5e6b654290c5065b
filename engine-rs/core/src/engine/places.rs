//! Who holds a place in the executor: running requests, and finished ones that are kept for a next turn. The only part
//! of the engine that calls the executor, so that a panic in it is caught in one place.

use super::kept::Kept;
use crate::error::{Error, Result};
use crate::executor::{BlockId, Chunk, Executor, Logits, Want};
use crate::kv::blocks_for;
use crate::scheduler::share::Row;
use crate::scheduler::{Scheduler, SeqId};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub struct Places {
    executor: Box<dyn Executor>,
    /// The executor's number for each running request. A kept sequence passes its own on.
    seats: BTreeMap<u64, SeqId>,
    /// The blocks of each seat, and those that none has.
    tables: BTreeMap<SeqId, Vec<BlockId>>,
    free: BTreeSet<BlockId>,
    blocks: BlockId,
    last_seat: SeqId,
    kept: Kept,
}

impl Places {
    /// `kept_tokens` bounds what finished requests leave behind.
    pub fn new(executor: Box<dyn Executor>, kept_tokens: usize) -> Self {
        Self {
            executor,
            seats: BTreeMap::new(),
            tables: BTreeMap::new(),
            free: BTreeSet::new(),
            blocks: 0,
            last_seat: 0,
            kept: Kept::new(kept_tokens),
        }
    }

    pub fn context_length(&self) -> usize {
        self.executor.context_length()
    }

    /// Gives a request a place: that of a kept sequence which begins like it, or an empty one. Returns how many of its
    /// tokens are computed already.
    pub fn enter(&mut self, id: u64, scope: &str, tokens: &[u32]) -> usize {
        if let Some((seat, computed)) = self.kept.take(scope, tokens) {
            self.truncate(seat, computed);
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
        for row in rows {
            self.grow(row);
        }
        let (seats, tables) = (&self.seats, &self.tables);
        let chunks: Vec<Chunk<'_>> = rows
            .iter()
            .map(|row| Chunk {
                blocks: seats.get(&row.id).and_then(|seat| tables.get(seat)).map_or(&[][..], Vec::as_slice),
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
                self.truncate(*seat, row.start);
            }
        }
    }

    /// Sequences of requests that are not finished.
    pub fn live(&self) -> usize {
        let all = self.tables.len();
        all.saturating_sub(self.kept.len())
    }

    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    pub fn kv_bytes(&self) -> usize {
        self.executor.kv_bytes()
    }

    fn grow(&mut self, row: &Row) {
        let Some(seat) = self.seats.get(&row.id) else {
            return;
        };
        let table = self.tables.entry(*seat).or_default();
        while table.len() < blocks_for(row.start + row.len) {
            table.push(self.free.pop_first().unwrap_or(self.blocks));
            self.blocks = self.blocks.max(table.last().map_or(0, |last| last + 1));
        }
    }

    fn truncate(&mut self, seat: SeqId, length: usize) {
        if let Some(table) = self.tables.get_mut(&seat) {
            self.free.extend(table.drain(blocks_for(length).min(table.len())..));
        }
    }

    fn release(&mut self, seat: SeqId) {
        self.free.extend(self.tables.remove(&seat).unwrap_or_default());
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
