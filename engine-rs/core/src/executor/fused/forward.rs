//! A batch through the layers. Every pass over rows treats a row alone and the same way in any batch, and so does every
//! kernel below; that is why a row's logits never depend on its company.

use std::sync::Mutex;

use quiver_kernels::attention::{AttendScratch, Head};
use quiver_kernels::rows::{gelu_gate, rms_norm, rotate_halves, rotate_interleaved, softcap};
use quiver_kernels::{Formats, Inputs, Isa, KvLayout, MatrixScratch, add, gate};

use super::attend::{Attention, SharedBlocks};
use super::attention::{AttendTask, parts, split};
use super::closing::Closing;
use super::projection::Workshop;
use super::rows::{SharedRows, for_each_row};
use super::weights::{Dense, FeedForward, Layer, Weights};
use crate::executor::pool::Pool;
use crate::kv::BlockStore;
use crate::model::{Activation, Batch, RopeKind};

/// Memory that a step works in, kept from step to step.
#[derive(Default)]
pub struct Buffers {
    pub inputs: Inputs,
    pub inner: Inputs,
    /// Rows in the order of the experts that they visit.
    pub gathered: Inputs,
    hidden: Vec<f32>,
    pub normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    pub gate_up: Vec<f32>,
    pub visited: Vec<f32>,
    pub branch: Vec<f32>,
    pub matrix: Vec<Mutex<MatrixScratch>>,
    attend: Vec<Mutex<AttendScratch>>,
    /// Results of segments that are still to be merged.
    partial: Vec<f32>,
}

impl Buffers {
    pub fn new(threads: usize) -> Buffers {
        Buffers {
            matrix: (0..threads).map(|_| Mutex::default()).collect(),
            attend: (0..threads).map(|_| Mutex::default()).collect(),
            ..Buffers::default()
        }
    }
}

/// Cosines and sines of a batch's rows for one of the model's ropes.
struct Angles {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

/// One step. Lives as long as its batch.
pub struct Forward<'a> {
    pub weights: &'a Weights,
    pub pool: &'a mut Pool,
    pub buffers: &'a mut Buffers,
    pub isa: Isa,
    pub batch: &'a Batch,
    layout: &'a KvLayout,
    /// The memory of each span's blocks.
    blocks: Vec<Vec<*mut u8>>,
    tasks: Vec<AttendTask>,
    angles: Vec<Angles>,
}

impl<'a> Forward<'a> {
    /// The store must have memory for every block of the batch.
    pub fn new(
        weights: &'a Weights,
        pool: &'a mut Pool,
        buffers: &'a mut Buffers,
        batch: &'a Batch,
        store: &mut BlockStore,
        layout: &'a KvLayout,
    ) -> Forward<'a> {
        let blocks =
            batch.spans.iter().map(|span| span.blocks.iter().map(|id| store.block_mut(*id).as_mut_ptr()).collect());
        let angles = weights.ropes.iter().map(|rope| {
            let (cosines, sines) = rope.table(&batch.positions);
            Angles { cosines, sines }
        });
        Forward {
            isa: Isa::best(),
            blocks: blocks.collect(),
            tasks: split(&batch.spans, weights.spec.kv_heads, weights.spec.group()),
            angles: angles.collect(),
            layout,
            weights,
            pool,
            buffers,
            batch,
        }
    }

    /// The logits of the wanted rows, `[wanted, vocab]` flat.
    pub fn run(mut self) -> Vec<f32> {
        let weights = self.weights;
        self.embed();
        let mut closing = Closing::default();
        for (number, layer) in weights.layers.iter().enumerate() {
            self.enter(&closing, &layer.attention_norm, layer.qkv.formats());
            self.attention(layer, number);
            self.enter(&layer.attention_closing(), &layer.feed_forward_norm, layer.feed_forward.formats());
            match &layer.feed_forward {
                FeedForward::Dense(dense) => self.gated(dense),
                FeedForward::Experts(experts) => self.experts(experts),
            }
            closing = layer.feed_forward_closing();
        }
        self.logits(&closing)
    }

    fn embed(&mut self) {
        let (weights, width) = (self.weights, self.weights.spec.width);
        let scale = weights.spec.embedding_scale;
        grow(&mut self.buffers.hidden, self.batch.tokens.len() * width);
        for (row, token) in self.buffers.hidden.chunks_exact_mut(width).zip(&self.batch.tokens) {
            weights.embedding.decode_rows(*token as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
    }

    /// Adds the branch to the hidden rows, and makes inputs of them, normalised, in the formats that are wanted.
    fn enter(&mut self, closing: &Closing<'_>, norm: &[f32], formats: Formats) {
        let (isa, spec) = (self.isa, &self.weights.spec);
        let (rows, width, epsilon) = (self.batch.tokens.len(), spec.width, spec.norm_epsilon);
        let Buffers { inputs, hidden, normed, branch, .. } = &mut *self.buffers;
        grow(normed, rows * width);
        grow(branch, rows * width);
        inputs.reset(rows, width, formats);
        let [hidden, normed, branch] = [hidden, normed, branch].map(|values| SharedRows::new(values, width));
        for_each_row(self.pool, rows, &|row| {
            // SAFETY: each row is used by one task.
            let (hidden, normed, branch) = unsafe { (hidden.row(row), normed.row(row), branch.row(row)) };
            closing.add(isa, spec, hidden, branch, normed);
            rms_norm(isa, hidden, norm, epsilon, normed);
            // SAFETY: as above.
            unsafe { inputs.set_row(isa, row, normed) };
        });
    }

    /// From the inputs to the branch: what attention adds to the hidden rows.
    fn attention(&mut self, layer: &Layer, number: usize) {
        let spec = &self.weights.spec;
        let (rows, width) = (self.batch.tokens.len(), spec.heads * spec.value_width);
        let Buffers { inputs, qkv, attended, branch, matrix, .. } = &mut *self.buffers;
        grow(qkv, rows * layer.qkv.width);
        grow(attended, rows * width);
        grow(branch, rows * spec.width);
        layer.qkv.forward(&mut Workshop { pool: self.pool, scratch: matrix }, inputs, 0..rows, qkv);
        self.turn_and_store(layer, number);
        self.attend(layer, number);
        let Buffers { inputs, attended, branch, matrix, .. } = &mut *self.buffers;
        inputs.reset(rows, width, layer.attention_output.formats());
        let (isa, shared) = (self.isa, (&*inputs, &*attended));
        for_each_row(self.pool, rows, &|row| {
            // SAFETY: each row is used by one task.
            unsafe { shared.0.set_row(isa, row, &shared.1[row * width..][..width]) }
        });
        layer.attention_output.forward(&mut Workshop { pool: self.pool, scratch: matrix }, inputs, 0..rows, branch);
    }

    /// Biases, head norms and rotation; then keys and values go to the cache.
    fn turn_and_store(&mut self, layer: &Layer, number: usize) {
        let (isa, spec, batch) = (self.isa, &self.weights.spec, self.batch);
        let rope = spec.layer[number].rope.map(|at| (&self.angles[at], &spec.ropes[at]));
        let (query_end, key_end) = (spec.heads * spec.key_width, (spec.heads + spec.kv_heads) * spec.key_width);
        let qkv = SharedRows::new(&mut self.buffers.qkv, layer.qkv.width);
        let (blocks, layout) = (SharedBlocks(&self.blocks), self.layout);
        for_each_row(self.pool, batch.tokens.len(), &|row| {
            // SAFETY: each row is used by one task.
            let values = unsafe { qkv.row(row) };
            if let Some(bias) = &layer.qkv.bias {
                add(isa, values, bias);
            }
            let (queries, rest) = values.split_at_mut(query_end);
            let (keys, values) = rest.split_at_mut(key_end - query_end);
            let temperature = spec.temperature.map_or(1.0, |temperature| temperature.at(batch.positions[row]));
            let mut room = Vec::new();
            for (heads, norm) in [(&mut *queries, &layer.query_norm), (&mut *keys, &layer.key_norm)] {
                for head in heads.chunks_exact_mut(spec.key_width) {
                    if let Some(norm) = norm {
                        room.clear();
                        room.extend_from_slice(head);
                        rms_norm(isa, &room, norm, spec.norm_epsilon, head);
                    }
                    if let Some((angles, rope)) = rope {
                        let pairs = row * rope.rotated / 2..(row + 1) * rope.rotated / 2;
                        let (cosines, sines) = (&angles.cosines[pairs.clone()], &angles.sines[pairs]);
                        match rope.kind {
                            RopeKind::Halves => rotate_halves(isa, head, cosines, sines),
                            RopeKind::Interleaved => rotate_interleaved(isa, head, cosines, sines),
                        }
                    }
                }
            }
            if temperature != 1.0 {
                queries.iter_mut().for_each(|value| *value *= temperature);
            }
            let (block, slot) = blocks.place_of(batch, row);
            let heads = keys.chunks_exact(spec.key_width).zip(values.chunks_exact(spec.value_width));
            for (head, (key, value)) in heads.enumerate() {
                // SAFETY: the block has memory for all layers and heads, and a slot is written by its row alone.
                unsafe { layout.store(isa, block, layout.offsets(number, head), slot, key, value) };
            }
        });
    }

    fn attend(&mut self, layer: &Layer, number: usize) {
        let (spec, layout) = (&self.weights.spec, self.layout);
        let head = Head {
            key_width: spec.key_width,
            value_width: spec.value_width,
            group: spec.group(),
            scale: spec.attention_scale,
            softcap: spec.attention_softcap,
            window: spec.layer[number].window,
        };
        let Buffers { qkv, attended, attend, partial, .. } = &mut *self.buffers;
        let parts = parts(&self.tasks, &head, self.pool.threads());
        grow(partial, parts.last().map_or(0, |part| part.partial.end));
        let work = Attention {
            isa: self.isa,
            queries: SharedRows::new(qkv, layer.qkv.width),
            out: SharedRows::new(attended, spec.heads * spec.value_width),
            stride: (layer.qkv.width, spec.heads * spec.value_width),
            tasks: &self.tasks,
            parts: &parts,
            layout,
            number,
            blocks: SharedBlocks(&self.blocks),
            head,
        };
        work.run(self.pool, attend, partial);
    }

    /// The inputs through a gated feed-forward into the branch.
    fn gated(&mut self, dense: &Dense) {
        let (rows, width) = (self.batch.tokens.len(), self.weights.spec.width);
        let Buffers { inputs, gate_up, branch, matrix, .. } = &mut *self.buffers;
        grow(gate_up, rows * dense.gate_up.width);
        grow(branch, rows * width);
        dense.gate_up.forward(&mut Workshop { pool: self.pool, scratch: matrix }, inputs, 0..rows, gate_up);
        self.activate(dense.gate_up.bias.as_deref(), dense.gate_up.width / 2, dense.down.formats(), rows);
        let Buffers { inner, branch, matrix, .. } = &mut *self.buffers;
        dense.down.forward(&mut Workshop { pool: self.pool, scratch: matrix }, inner, 0..rows, branch);
    }

    /// Gates times values, as the inner inputs.
    pub fn activate(&mut self, bias: Option<&[f32]>, half: usize, formats: Formats, rows: usize) {
        let isa = self.isa;
        let Buffers { inner, gate_up, .. } = &mut *self.buffers;
        inner.reset(rows, half, formats);
        let (inner, gate_up) = (&*inner, SharedRows::new(gate_up, 2 * half));
        let activate = match self.weights.spec.activation {
            Activation::Silu => gate,
            Activation::Gelu => gelu_gate,
        };
        for_each_row(self.pool, rows, &|row| {
            // SAFETY: each row is used by one task.
            unsafe {
                let row_values = gate_up.row(row);
                if let Some(bias) = bias {
                    add(isa, row_values, bias);
                }
                let (gates, values) = row_values.split_at_mut(half);
                activate(isa, gates, values);
                inner.set_row(isa, row, gates);
            }
        });
    }

    fn logits(mut self, closing: &Closing<'_>) -> Vec<f32> {
        let weights = self.weights;
        let (spec, vocab, wanted) = (&weights.spec, weights.vocab, &self.batch.wanted);
        let mut logits = Vec::new();
        grow(&mut logits, wanted.len() * vocab);
        if wanted.is_empty() {
            return logits;
        }
        self.normalise_wanted(closing);
        let Buffers { inputs, matrix, .. } = &mut *self.buffers;
        let mut workshop = Workshop { pool: self.pool, scratch: matrix };
        weights.output.forward(&mut workshop, inputs, 0..wanted.len(), &mut logits);
        let bias = weights.output.bias.as_deref();
        for row in logits.chunks_exact_mut(vocab) {
            if let Some(bias) = bias {
                add(self.isa, row, bias);
            }
            if spec.logit_scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= spec.logit_scale);
            }
            if spec.logit_softcap != 0.0 {
                softcap(self.isa, row, spec.logit_softcap);
            }
        }
        logits
    }

    fn normalise_wanted(&mut self, closing: &Closing<'_>) {
        let (isa, weights, width) = (self.isa, self.weights, self.weights.spec.width);
        let Buffers { inputs, hidden, normed, branch, .. } = &mut *self.buffers;
        inputs.reset(self.batch.wanted.len(), width, weights.output.formats());
        for (at, row) in self.batch.wanted.iter().enumerate() {
            let place = *row as usize * width..(*row as usize + 1) * width;
            let (hidden, branch) = (&mut hidden[place.clone()], &mut branch[place]);
            closing.add(isa, &weights.spec, hidden, branch, &mut normed[..width]);
            rms_norm(isa, hidden, &weights.output_norm, weights.spec.norm_epsilon, &mut normed[..width]);
            // SAFETY: no other thread is at work.
            unsafe { inputs.set_row(isa, at, &normed[..width]) };
        }
    }
}

/// Makes the buffer exactly so long; what it holds does not matter.
///
/// # Panics
/// Where there is no memory: an abort would end every request, a panic ends the step.
pub fn grow(buffer: &mut Vec<f32>, length: usize) {
    let missing = length.saturating_sub(buffer.len());
    assert!(buffer.try_reserve(missing).is_ok(), "no memory for {length} numbers of a step");
    buffer.resize(length, 0.0);
}
