//! Spreads a batch's attention over the threads: a task is a few rows of one sequence and one key-value head. The rows
//! of a task do not influence each other's results, so how the work is cut is free.

use rayon::prelude::*;

use super::batch::Span;
use crate::kernels::attention::{AttendScratch, Head};
use crate::kv::KvCache;

/// Query vectors in a task: enough to use a widened page often, few enough that they stay in the first-level cache.
const TASK_QUERIES: usize = 32;
/// Below this many query-key products a batch is not worth waking another thread for.
const MIN_PARALLEL_WORK: usize = 64 << 10;

struct Task<'a> {
    span: &'a Span,
    rows: std::ops::Range<usize>,
    head: usize,
}

/// Queries `[rows, kv_heads, group, key_width]` to `[rows, kv_heads, group, value_width]`.
pub(super) fn attention(
    head: Head,
    kv_heads: usize,
    layer: usize,
    spans: &[Span],
    queries: &[f32],
    kv: &KvCache,
) -> Vec<f32> {
    let tasks = split(spans, kv_heads, head.group);
    let work: usize = spans.iter().map(|span| span.rows.len() * span.end()).sum();
    let run = |scratch: &mut AttendScratch, task: &Task<'_>| {
        let key_row = head.group * head.key_width;
        let first = task.span.position_of(task.rows.start);
        let rows = queries.chunks(kv_heads * key_row).skip(task.rows.start).take(task.rows.len());
        let gathered: Vec<f32> = rows.flat_map(|row| &row[task.head * key_row..][..key_row]).copied().collect();
        kv.attend(&task.span.blocks, (layer, task.head), &head, first, &gathered, scratch)
    };
    let results: Vec<Vec<f32>> = if work * kv_heads * head.group * head.key_width < MIN_PARALLEL_WORK {
        let mut scratch = AttendScratch::default();
        tasks.iter().map(|task| run(&mut scratch, task)).collect()
    } else {
        tasks.par_iter().map_init(AttendScratch::default, run).collect()
    };
    scatter(&tasks, &results, kv_heads, head.group * head.value_width)
}

fn split(spans: &[Span], kv_heads: usize, group: usize) -> Vec<Task<'_>> {
    let rows_at_once = (TASK_QUERIES / group).max(1);
    let mut tasks = Vec::new();
    for span in spans {
        for start in span.rows.clone().step_by(rows_at_once) {
            let rows = start..(start + rows_at_once).min(span.rows.end);
            tasks.extend((0..kv_heads).map(|head| Task { span, rows: rows.clone(), head }));
        }
    }
    tasks
}

fn scatter(tasks: &[Task<'_>], results: &[Vec<f32>], kv_heads: usize, width: usize) -> Vec<f32> {
    let mut out = vec![0.0; results.iter().map(Vec::len).sum()];
    for (task, result) in tasks.iter().zip(results) {
        for (row, values) in task.rows.clone().zip(result.chunks(width)) {
            out[(row * kv_heads + task.head) * width..][..width].copy_from_slice(values);
        }
    }
    out
}
