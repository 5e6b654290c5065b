//! Every kind on every instruction set, for every number of rows: the same bits whatever the company, and the product
//! that the decoded weights and inputs have in double precision.

use super::*;
use crate::testing::{Noise, random_blocks};
use crate::{SUPPORTED, decode};

/// Relative to the sum of the magnitudes that are added.
const TOLERANCE: f64 = 1e-5;

struct Case {
    rows: usize,
    columns: usize,
    matrix: Matrix,
    weights: Vec<f32>,
    inputs: Vec<f32>,
}

fn case(isa: Isa, kind: BlockType, rows: usize, columns: usize, input_rows: usize) -> Case {
    let mut noise = Noise::new((rows * columns) as u64);
    let bytes = random_blocks(&mut noise, kind, rows * columns, 1.0);
    let mut weights = vec![0.0; rows * columns];
    decode(isa, kind, &bytes, &mut weights);
    let matrix = Matrix::pack(isa, kind, rows, columns, &bytes).unwrap();
    Case { rows, columns, matrix, weights, inputs: noise.floats(input_rows * columns) }
}

impl Case {
    fn input(&self, row: usize) -> &[f32] {
        &self.inputs[row * self.columns..][..self.columns]
    }

    /// The products of input rows `first..first + count` as they come out of one call.
    fn products(&self, isa: Isa, first: usize, count: usize) -> Vec<f32> {
        let mut inputs = Inputs::default();
        inputs.reset(count, self.columns, self.matrix.format().into());
        let mut out = vec![f32::NAN; count * self.rows];
        // SAFETY: one thread; `out` has a column for each weight row.
        unsafe {
            for row in 0..count {
                inputs.set_row(isa, row, self.input(first + row));
            }
            let out = Output::new(out.as_mut_ptr(), self.rows);
            let strips = 0..self.matrix.strips();
            self.matrix.multiply(strips, &inputs, 0..count, out, &mut MatrixScratch::default());
        }
        out
    }

    /// An input row as its format holds it.
    fn converted(&self, row: usize) -> Vec<f64> {
        let width = match self.matrix.format() {
            Format::F32 => return self.input(row).iter().map(|value| f64::from(*value)).collect(),
            Format::Q8K => 256,
            Format::Q8 => 32,
        };
        let blocks = self.input(row).chunks(width);
        blocks
            .flat_map(|block| {
                let peak = block.iter().fold(0.0_f32, |peak, value| peak.max(value.abs()));
                let (scale, inverse) = (peak / 127.0, 127.0 / peak);
                block.iter().map(move |value| f64::from((value * inverse).round_ties_even()) * f64::from(scale))
            })
            .collect()
    }
}

fn shapes(kind: BlockType) -> Vec<(usize, usize)> {
    let unit = kind.elements;
    match unit {
        1 => vec![(1, 1), (15, 63), (33, 130), (16, 300)],
        32 => vec![(1, 32), (15, 96), (33, 320), (32, 256)],
        _ => vec![(1, 256), (15, 512), (33, 768), (32, 256)],
    }
}

#[test]
fn products_match_the_reference() {
    for isa in Isa::available() {
        for kind in SUPPORTED {
            for (rows, columns) in shapes(kind) {
                let case = case(isa, kind, rows, columns, 17);
                for count in [1, 17] {
                    let out = case.products(isa, 0, count);
                    for row in 0..count {
                        let input = case.converted(row);
                        for column in 0..rows {
                            let weights = &case.weights[column * columns..][..columns];
                            let terms = weights.iter().zip(&input).map(|(w, x)| f64::from(*w) * x);
                            let (expected, size) =
                                terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                            let got = f64::from(out[row * rows + column]);
                            assert!(
                                (got - expected).abs() <= TOLERANCE * size,
                                "{isa:?} {kind} {rows}x{columns}, row {row} of {count}, {column}: {got} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_ignores_its_batch() {
    for isa in Isa::available() {
        for kind in SUPPORTED {
            let (rows, columns) = shapes(kind)[2];
            let case = case(isa, kind, rows, columns, 64);
            let alone: Vec<u32> = (0..64).flat_map(|row| case.products(isa, row, 1)).map(f32::to_bits).collect();
            for count in [2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 64] {
                let together: Vec<u32> = case.products(isa, 0, count).into_iter().map(f32::to_bits).collect();
                assert_eq!(together, alone[..count * rows], "{isa:?} {kind}: {count} rows");
            }
        }
    }
}

#[test]
fn parts_make_the_whole() {
    for isa in Isa::available() {
        for kind in [BlockType::Q4_K, BlockType::Q8_0, BlockType::F16, BlockType::Q5_1] {
            let case = case(isa, kind, 100, 256, 20);
            let whole = case.products(isa, 0, 20);
            let mut inputs = Inputs::default();
            inputs.reset(20, 256, case.matrix.format().into());
            let mut out = vec![f32::NAN; 20 * 100];
            // SAFETY: one thread; `out` has a column for each weight row.
            unsafe {
                for row in 0..20 {
                    inputs.set_row(isa, row, case.input(row));
                }
                let (out, mut scratch) = (Output::new(out.as_mut_ptr(), 100), MatrixScratch::default());
                for strips in [0..1, 1..6, 6..7] {
                    for rows in [0..18, 18..20] {
                        case.matrix.multiply(strips.clone(), &inputs, rows, out, &mut scratch);
                    }
                }
            }
            assert_eq!(out, whole, "{isa:?} {kind}");
        }
    }
}

#[test]
#[should_panic(expected = "do not fit a Q8_0 matrix of 64 columns")]
fn other_inputs_are_refused() {
    let case = case(Isa::PORTABLE, BlockType::Q8_0, 1, 64, 1);
    let mut inputs = Inputs::default();
    inputs.reset(1, 64, Format::F32.into());
    let mut out = [0.0];
    // SAFETY: one thread; `out` has a column for the only weight row.
    unsafe {
        let out = Output::new(out.as_mut_ptr(), 1);
        case.matrix.multiply(0..1, &inputs, 0..1, out, &mut MatrixScratch::default());
    }
}
