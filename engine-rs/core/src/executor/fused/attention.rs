//! How a batch's attention is cut into tasks: a few rows of one sequence and one key-value head. Where that gives too few
//! tasks for the threads, as with one stream and few heads, tasks over a long context are cut along it too; the results of
//! its segments are then merged, which gives the same bits.

use std::ops::Range;

use quiver_kernels::attention::Head;

use crate::model::Span;

/// Query vectors in a task: enough to use a widened block often, few enough that they stay in the first-level cache.
const TASK_QUERIES: usize = 64;
/// Fewer tasks than this for each thread leave threads idle at the end.
const TASKS_PER_THREAD: usize = 2;

/// Rows that attend together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttendTask {
    /// Index of the sequence's span in the batch.
    pub span: usize,
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first row.
    pub first: usize,
    /// Key-value head.
    pub head: usize,
}

/// A part of a task's context, and where its result lies among the partial ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub task: usize,
    pub segments: Range<usize>,
    pub partial: Range<usize>,
}

/// All tasks of a batch, the most work first: threads that end together waste nothing.
pub fn split(spans: &[Span], kv_heads: usize, group: usize) -> Vec<AttendTask> {
    let rows_at_once = (TASK_QUERIES / group).max(1);
    let mut tasks = Vec::new();
    for (span, entry) in spans.iter().enumerate() {
        for start in entry.rows.clone().step_by(rows_at_once) {
            let rows = start..(start + rows_at_once).min(entry.rows.end);
            let first = entry.position_of(start);
            tasks.extend((0..kv_heads).map(|head| AttendTask { span, rows: rows.clone(), first, head }));
        }
    }
    let work = |task: &AttendTask| task.rows.len() * (task.first + task.rows.len());
    tasks.sort_by_key(|task| std::cmp::Reverse(work(task)));
    tasks
}

/// The parts that the tasks are cut into, or none where there are enough tasks or nothing to cut.
pub fn parts(tasks: &[AttendTask], head: &Head, threads: usize) -> Vec<Part> {
    let wanted = threads * TASKS_PER_THREAD;
    if threads == 1 || tasks.len() >= wanted {
        return Vec::new();
    }
    let pieces = wanted.div_ceil(tasks.len().max(1));
    let mut end = 0;
    let mut parts = Vec::new();
    for (number, task) in tasks.iter().enumerate() {
        let all = head.segments(task.first, task.rows.len());
        let each = all.len().div_ceil(pieces).max(1);
        for start in all.clone().step_by(each) {
            let segments = start..(start + each).min(all.end);
            let length = segments.len() * head.partial_len(task.rows.len());
            parts.push(Part { task: number, segments, partial: end..end + length });
            end += length;
        }
    }
    if parts.len() == tasks.len() { Vec::new() } else { parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(rows: Range<usize>, start: usize) -> Span {
        Span { rows, start, blocks: Vec::new() }
    }

    fn head(group: usize) -> Head {
        Head { key_width: 4, value_width: 4, group, scale: 1.0, softcap: 0.0, window: 0 }
    }

    #[test]
    fn tasks_cover_rows_once() {
        let tasks = split(&[span(0..100, 7), span(100..101, 5000)], 3, 2);
        assert_eq!(tasks[0].span, 1, "the longest context first");
        for row in 0..101 {
            for head in 0..3 {
                let of = |task: &&AttendTask| task.head == head && task.rows.contains(&row);
                assert_eq!(tasks.iter().filter(of).count(), 1, "{row} {head}");
            }
        }
    }

    #[test]
    fn few_tasks_are_cut_along_the_context() {
        let tasks = split(&[span(0..1, 5000)], 1, 2);
        let parts = parts(&tasks, &head(2), 4);
        assert!(parts.len() >= 4, "{parts:?}");
        let mut next = (0, 0);
        for part in &parts {
            assert_eq!((part.segments.start, part.partial.start), next);
            next = (part.segments.end, part.partial.end);
        }
        assert_eq!(next.0, head(2).segments(5000, 1).end);
    }

    #[test]
    fn enough_tasks_stay_whole() {
        let table = [(split(&[span(0..1, 5000)], 8, 2), 2), (split(&[span(0..1, 5000)], 1, 2), 1), (Vec::new(), 2)];
        for (tasks, threads) in table {
            assert_eq!(parts(&tasks, &head(2), threads), []);
        }
        assert_eq!(parts(&split(&[span(0..1, 10)], 1, 2), &head(2), 8), [], "one segment");
    }
}
