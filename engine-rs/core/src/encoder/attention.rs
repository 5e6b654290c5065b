//! Attention without a mask: every token of a text sees every other one, and nothing of other texts.

use std::ops::Range;

use rayon::prelude::*;

use super::rotation::Rotation;
use crate::kernels::{Isa, products, softmax};

/// Query rows whose scores are in memory at a time: bounds them for long texts.
const QUERIES: usize = 64;

/// Rows of queries, keys or values of all heads, perhaps inside wider rows.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub offset: usize,
}

impl Rows<'_> {
    /// One head's part of row `row`.
    fn head(&self, row: usize, head: usize, width: usize) -> &[f32] {
        &self.values[row * self.stride + self.offset + head * width..][..width]
    }
}

pub struct Attention<'a> {
    pub isa: Isa,
    pub heads: usize,
    pub width: usize,
    pub rotation: Option<&'a Rotation>,
    pub queries: Rows<'a>,
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
}

impl Attention<'_> {
    /// `[rows, heads * width]`; `texts` are consecutive ranges of rows.
    pub fn run(&self, texts: &[Range<usize>]) -> Vec<f32> {
        let tasks: Vec<_> = texts.iter().flat_map(|text| (0..self.heads).map(|head| (text.clone(), head))).collect();
        let attended: Vec<Vec<f32>> = tasks.par_iter().map(|(text, head)| self.head(text.clone(), *head)).collect();
        let stride = self.heads * self.width;
        let mut out = vec![0.0; texts.iter().map(Range::len).sum::<usize>() * stride];
        for ((text, head), rows) in tasks.into_iter().zip(attended) {
            for (row, values) in text.zip(rows.chunks(self.width)) {
                out[row * stride + head * self.width..][..self.width].copy_from_slice(values);
            }
        }
        out
    }

    /// What one head of one text attends to, `[rows of the text, width]`.
    fn head(&self, text: Range<usize>, head: usize) -> Vec<f32> {
        let (count, width) = (text.len(), self.width);
        let queries = self.gather(&self.queries, text.clone(), head);
        let keys = self.gather(&self.keys, text.clone(), head);
        let mut values = vec![0.0; count * width];
        for (at, row) in text.enumerate() {
            for (column, value) in self.values.head(row, head, width).iter().enumerate() {
                values[column * count + at] = *value;
            }
        }
        let scale = 1.0 / (width as f32).sqrt();
        let mut scores = vec![0.0; QUERIES.min(count) * count];
        let mut out = vec![0.0; count * width];
        for (queries, out) in queries.chunks(QUERIES * width).zip(out.chunks_mut(QUERIES * width)) {
            let scores = &mut scores[..queries.len() / width * count];
            products(self.isa, queries, &keys, width, scores, count);
            scores.chunks_mut(count).for_each(|row| softmax(self.isa, row, scale));
            products(self.isa, scores, &values, count, out, width);
        }
        out
    }

    /// The rows of one head, together and turned to their positions.
    fn gather(&self, from: &Rows<'_>, text: Range<usize>, head: usize) -> Vec<f32> {
        let mut rows = Vec::with_capacity(text.len() * self.width);
        text.for_each(|row| rows.extend_from_slice(from.head(row, head, self.width)));
        if let Some(rotation) = self.rotation {
            rows.chunks_mut(self.width).enumerate().for_each(|(position, row)| rotation.turn(row, position));
        }
        rows
    }
}
