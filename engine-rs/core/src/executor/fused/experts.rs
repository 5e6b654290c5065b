//! The feed-forward of a mixture of experts: the router scores all of them for each row, the row goes through the best
//! few, and their outputs are added with the scores as weights. Rows are sorted by expert, so that an expert's weights
//! are read once for all of its rows; what a row gets does not depend on that. Some models have an expert beside them that
//! every row goes through.

use std::cmp::Ordering;
use std::ops::Range;

use quiver_kernels::Formats;
use quiver_kernels::rows::scale_add;

use super::forward::{Buffers, Forward, grow};
use super::projection::{Projection, Workshop, forward_all};
use super::rows::{SharedRows, for_each_row};
use super::weights::{Dense, Experts, SharedExpert};
use crate::model::ExpertSpec;

/// One row's use of one expert.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Visit {
    row: usize,
    expert: usize,
    weight: f32,
}

impl Forward<'_> {
    /// The inputs through the experts into the branch.
    pub fn experts(&mut self, experts: &Experts) {
        let (spec, rows) = (&experts.spec, self.batch.tokens.len());
        let visits = self.route(experts, spec, rows);
        let mut sorted: Vec<usize> = (0..visits.len()).collect();
        sorted.sort_by_key(|visit| visits[*visit].expert);
        let ranges = ranges(&visits, &sorted);
        self.gather(&visits, &sorted, experts);
        self.visit(experts, &ranges, visits.len());
        self.add_up(&visits, &sorted, spec.used, rows);
        if let Some(shared) = &experts.shared {
            self.shared_expert(shared, rows);
        }
    }

    /// Adds the expert that every row goes through to the branch.
    fn shared_expert(&mut self, shared: &SharedExpert, rows: usize) {
        let (isa, width) = (self.isa, self.weights.spec.width);
        let mut gates = vec![0.0; rows];
        let Buffers { inputs, gate_up, matrix, .. } = &mut *self.buffers;
        let mut workshop = Workshop { pool: self.pool, scratch: matrix };
        if let Some(gate) = &shared.gate {
            gate.forward(&mut workshop, inputs, 0..rows, &mut gates);
        }
        let Dense { gate_up: first, down } = &shared.dense;
        grow(gate_up, rows * first.width);
        first.forward(&mut workshop, inputs, 0..rows, gate_up);
        self.activate(first.bias.as_deref(), first.width / 2, down.formats(), rows);
        let Buffers { inner, visited, branch, matrix, .. } = &mut *self.buffers;
        grow(visited, rows * width);
        down.forward(&mut Workshop { pool: self.pool, scratch: matrix }, inner, 0..rows, visited);
        let weight = |gate: f32| if shared.gate.is_some() { 1.0 / (1.0 + (-gate).exp()) } else { 1.0 };
        for ((sum, part), gate) in branch.chunks_exact_mut(width).zip(visited.chunks_exact(width)).zip(&gates) {
            scale_add(isa, sum, weight(*gate), part);
        }
    }

    /// Each row's experts, the best first; `spec.used` for each row.
    fn route(&mut self, experts: &Experts, spec: &ExpertSpec, rows: usize) -> Vec<Visit> {
        let mut scores = vec![0.0; rows * spec.count];
        let Buffers { inputs, matrix, .. } = &mut *self.buffers;
        let mut workshop = Workshop { pool: self.pool, scratch: matrix };
        experts.router.forward(&mut workshop, inputs, 0..rows, &mut scores);
        scores.chunks_exact(spec.count).enumerate().flat_map(|(row, scores)| choose(row, scores, spec)).collect()
    }

    /// The normalised rows in the order of the visits, as inputs.
    fn gather(&mut self, visits: &[Visit], sorted: &[usize], experts: &Experts) {
        let (isa, width) = (self.isa, self.weights.spec.width);
        let formats = formats(experts, |expert| &expert.gate_up);
        let Buffers { gathered, normed, .. } = &mut *self.buffers;
        gathered.reset(visits.len(), width, formats);
        let (gathered, normed) = (&*gathered, &*normed);
        for_each_row(self.pool, sorted.len(), &|at| {
            let row = visits[sorted[at]].row;
            // SAFETY: each row is used by one task.
            unsafe { gathered.set_row(isa, at, &normed[row * width..][..width]) };
        });
    }

    /// Every expert for its rows; results go to `visited`, in the order of the visits.
    fn visit(&mut self, experts: &Experts, ranges: &[(usize, Range<usize>)], visits: usize) {
        let width = self.weights.spec.width;
        let Some(first) = experts.experts.first() else {
            return;
        };
        let Buffers { gathered, gate_up, matrix, .. } = &mut *self.buffers;
        grow(gate_up, visits * first.gate_up.width);
        let mut workshop = Workshop { pool: self.pool, scratch: matrix };
        forward_all(&jobs(experts, ranges, |dense| &dense.gate_up), &mut workshop, gathered, gate_up);
        let formats = formats(experts, |expert| &expert.down);
        self.activate(None, first.gate_up.width / 2, formats, visits);
        let Buffers { inner, visited, matrix, .. } = &mut *self.buffers;
        grow(visited, visits * width);
        let mut workshop = Workshop { pool: self.pool, scratch: matrix };
        forward_all(&jobs(experts, ranges, |dense| &dense.down), &mut workshop, inner, visited);
    }

    /// Each row's results, weighted, in the order of its own choice.
    fn add_up(&mut self, visits: &[Visit], sorted: &[usize], used: usize, rows: usize) {
        let (isa, width) = (self.isa, self.weights.spec.width);
        let mut places = vec![0; visits.len()];
        sorted.iter().enumerate().for_each(|(place, visit)| places[*visit] = place);
        let Buffers { visited, branch, .. } = &mut *self.buffers;
        grow(branch, rows * width);
        let (visited, branch) = (&*visited, SharedRows::new(branch, width));
        for_each_row(self.pool, rows, &|row| {
            // SAFETY: each row is used by one task.
            let sum = unsafe { branch.row(row) };
            sum.fill(0.0);
            for visit in row * used..(row + 1) * used {
                scale_add(isa, sum, visits[visit].weight, &visited[places[visit] * width..][..width]);
            }
        });
    }
}

/// What one part of all experts wants its input as.
fn formats(experts: &Experts, part: impl Fn(&Dense) -> &Projection) -> Formats {
    experts.experts.iter().fold(Formats::default(), |all, expert| all.union(part(expert).formats()))
}

fn jobs<'a>(
    experts: &'a Experts,
    ranges: &[(usize, Range<usize>)],
    part: impl Fn(&'a Dense) -> &'a Projection,
) -> Vec<(&'a Projection, Range<usize>)> {
    ranges.iter().map(|(expert, rows)| (part(&experts.experts[*expert]), rows.clone())).collect()
}

/// Which of the sorted visits belong to each expert that is visited at all.
fn ranges(visits: &[Visit], sorted: &[usize]) -> Vec<(usize, Range<usize>)> {
    let mut ranges: Vec<(usize, Range<usize>)> = Vec::new();
    for (place, visit) in sorted.iter().enumerate() {
        let expert = visits[*visit].expert;
        match ranges.last_mut() {
            Some((last, range)) if *last == expert => range.end = place + 1,
            _ => ranges.push((expert, place..place + 1)),
        }
    }
    ranges
}

/// The best `used` of a row's experts; of equals the first. Weights are shares of a softmax over all of them, or over the
/// chosen alone where the model normalises.
fn choose(row: usize, scores: &[f32], spec: &ExpertSpec) -> Vec<Visit> {
    let maximum = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|score| (score - maximum).exp()).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| weights[*b].partial_cmp(&weights[*a]).unwrap_or(Ordering::Equal));
    order.truncate(spec.used);
    let sum: f32 = match spec.normalise {
        true => order.iter().map(|expert| weights[*expert]).sum::<f32>(),
        false => weights.iter().sum(),
    };
    let visit = |expert: &usize| Visit { row, expert: *expert, weight: weights[*expert] / sum * spec.scale };
    order.iter().map(visit).collect()
}
