//! A projection: matrices that read the same input rows and write side by side into the same output rows, such as a
//! layer's queries, keys and values. One job of the pool computes all of them.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use quiver_kernels::{Formats, Inputs, Matrix, MatrixScratch, Output};

use crate::executor::pool::Pool;

/// Tasks for each thread in a job: enough that threads which were held up elsewhere do not hold up the job.
const TASKS_PER_THREAD: usize = 6;
/// Strips are multiplied in pairs: an odd task would waste half a pair.
const PAIR: usize = 2;

/// See the module. Holds at least one part.
#[derive(Debug)]
pub struct Projection {
    parts: Vec<Part>,
    /// Columns of an output row.
    pub width: usize,
    /// For each output column, where any part has one.
    pub bias: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Part {
    matrix: Matrix,
    /// Its first output column.
    at: usize,
}

/// What part of a part a task computes.
struct Task<'a> {
    part: &'a Part,
    strips: Range<usize>,
    rows: Range<usize>,
}

impl Projection {
    /// Matrices from left to right, each with its bias.
    pub fn new(matrices: Vec<(Matrix, Option<Vec<f32>>)>) -> Projection {
        let width = matrices.iter().map(|(matrix, _)| matrix.rows).sum();
        let biased = matrices.iter().any(|(_, bias)| bias.is_some());
        let bias = biased.then(|| {
            let whole =
                |(matrix, bias): &(Matrix, Option<Vec<f32>>)| bias.clone().unwrap_or_else(|| vec![0.0; matrix.rows]);
            matrices.iter().flat_map(whole).collect()
        });
        let mut at = 0;
        let parts = matrices.into_iter().map(|(matrix, _)| {
            at += matrix.rows;
            Part { at: at - matrix.rows, matrix }
        });
        Projection { parts: parts.collect(), width, bias }
    }

    /// What the parts want their input as.
    pub fn formats(&self) -> Formats {
        self.parts.iter().fold(Formats::default(), |all, part| all.union(part.matrix.format().into()))
    }

    /// Products of `rows` of the inputs into the same rows of `out`; see `forward_all`.
    pub fn forward(&self, workshop: &mut Workshop<'_>, inputs: &Inputs, rows: Range<usize>, out: &mut [f32]) {
        forward_all(&[(self, rows)], workshop, inputs, out);
    }
}

/// The threads and what each of them works with.
pub struct Workshop<'a> {
    pub pool: &'a mut Pool,
    pub scratch: &'a [Mutex<MatrixScratch>],
}

/// In one job, products of each projection with some rows of the inputs into the same rows of `out`, whose rows are as
/// wide as the projections, all of one width. Biases are left to the caller.
///
/// # Panics
/// Where `out` does not hold the rows, or two projections want the same.
pub fn forward_all(
    projections: &[(&Projection, Range<usize>)],
    workshop: &mut Workshop<'_>,
    inputs: &Inputs,
    out: &mut [f32],
) {
    let Some((first, _)) = projections.first() else {
        return;
    };
    let stride = first.width;
    let mut end = 0;
    for (projection, rows) in projections {
        assert!(projection.width == stride && rows.start >= end && rows.end * stride <= out.len());
        end = rows.end;
    }
    let tasks = tasks(projections, workshop.pool.threads());
    let start = out.as_mut_ptr();
    // SAFETY: the rows are inside `out`, as asserted, and each task writes rows or columns of its own.
    let output = unsafe { Output::new(start, stride) };
    let scratch = workshop.scratch;
    workshop.pool.run(tasks.len(), &|task, thread| {
        let Task { part, strips, rows } = &tasks[task];
        let mut scratch = scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as above; the part's columns follow those of the parts before it.
        unsafe {
            let out = output.offset(part.at);
            part.matrix.multiply(strips.clone(), inputs, rows.clone(), out, &mut scratch);
        }
    });
}

fn tasks<'a>(projections: &[(&'a Projection, Range<usize>)], threads: usize) -> Vec<Task<'a>> {
    let strips = |projection: &Projection| projection.parts.iter().map(|part| part.matrix.strips()).sum::<usize>();
    let all: usize = projections.iter().map(|(projection, _)| strips(projection)).sum();
    let each = match threads {
        1 => all,
        threads => all.div_ceil(threads * TASKS_PER_THREAD).next_multiple_of(PAIR),
    };
    let of_projection = |(projection, rows): &(&'a Projection, Range<usize>)| {
        let rows = rows.clone();
        projection.parts.iter().flat_map(move |part| cut(part, each, rows.clone()))
    };
    projections.iter().flat_map(of_projection).collect()
}

fn cut(part: &Part, each: usize, rows: Range<usize>) -> impl Iterator<Item = Task<'_>> {
    let strips = part.matrix.strips();
    let task = move |start| Task { part, strips: start..(start + each).min(strips), rows: rows.clone() };
    (0..strips).step_by(each).map(task)
}
