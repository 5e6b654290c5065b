//! The only part of the engine that calls the executor, so that a panic in it is caught in one place.

use crate::error::{Error, Result};
use crate::executor::{Chunk, Executor, Logits, Want};
use crate::scheduler::Scheduler;
use crate::scheduler::share::Row;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs rows through the executor: for each that samples a row of logits, and one more for each guessed token. A panic is
/// an error like any other.
pub fn compute(executor: &mut dyn Executor, rows: &[Row], scheduler: &Scheduler) -> Result<Logits> {
    let tokens: Vec<Cow<'_, [u32]>> = rows.iter().map(|row| tokens(row, scheduler)).collect();
    let chunks: Vec<Chunk<'_>> = rows
        .iter()
        .zip(&tokens)
        .map(|(row, tokens)| Chunk { start: row.start, tokens, want: want(row), blocks: scheduler.blocks(row) })
        .collect();
    let logits = guarded(|| executor.step(&chunks))?;
    let wanted: usize = rows.iter().map(answers).sum();
    if logits.rows.len() != wanted * logits.vocab {
        let numbers = logits.rows.len();
        let message = format!("{wanted} rows of logits wanted, {numbers} numbers came");
        return Err(Error::Internal(message));
    }
    Ok(logits)
}

/// Rows of logits that come for a row.
pub fn answers(row: &Row) -> usize {
    if row.samples { 1 + row.guess.len() } else { 0 }
}

fn tokens<'a>(row: &Row, scheduler: &'a Scheduler) -> Cow<'a, [u32]> {
    let tokens = scheduler.tokens(row);
    if row.guess.is_empty() { Cow::Borrowed(tokens) } else { Cow::Owned([tokens, &row.guess].concat()) }
}

/// A row with a guess has one token of its own.
fn want(row: &Row) -> Want {
    match (row.samples, row.guess.is_empty()) {
        (false, _) => Want::Nothing,
        (true, true) => Want::Last,
        (true, false) => Want::All,
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
