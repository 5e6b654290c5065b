//! How a batch's attention is cut into tasks: a few rows of one sequence and one key-value head.

use std::ops::Range;

use crate::model::Span;

/// Query vectors in a task: enough to use a widened block often, few enough that they stay in the first-level cache.
const TASK_QUERIES: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttendTask {
    /// Index of the sequence's span in the batch.
    pub span: usize,
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Key-value head.
    pub head: usize,
}

/// All tasks of a batch, the most work first: threads that end together waste nothing.
pub fn split(spans: &[Span], kv_heads: usize, group: usize) -> Vec<AttendTask> {
    let rows_at_once = (TASK_QUERIES / group).max(1);
    let mut tasks = Vec::new();
    for (number, span) in spans.iter().enumerate() {
        for start in span.rows.clone().step_by(rows_at_once) {
            let rows = start..(start + rows_at_once).min(span.rows.end);
            tasks.extend((0..kv_heads).map(|head| AttendTask { span: number, rows: rows.clone(), head }));
        }
    }
    let work = |task: &AttendTask| task.rows.len() * (spans[task.span].position_of(task.rows.start) + task.rows.len());
    tasks.sort_by_key(|task| std::cmp::Reverse(work(task)));
    tasks
}
