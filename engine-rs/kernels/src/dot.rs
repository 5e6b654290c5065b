//! Products of weight rows with activation rows. Each product is one chain of vector additions along the row, in the
//! same order whether it is computed alone or in a tile with others: a row's result never depends on its batch.

use super::isa::{Lanes, per_isa};

/// Weight rows that one tile takes; callers decode this many at a time.
pub const TILE: usize = 4;

per_isa! {
    /// `out[i * stride + j]` = the product of row `i` of `weights` with row `j` of `inputs`, rows of `width` values.
    ///
    /// # Panics
    /// If a slice is too short for its rows.
    pub fn products(weights: &[f32], inputs: &[f32], width: usize, out: &mut [f32], stride: usize) = products_for
}

#[inline(always)]
fn products_for<L: Lanes>(weights: &[f32], inputs: &[f32], width: usize, out: &mut [f32], stride: usize) {
    let (rows, columns) = (weights.len() / width, inputs.len() / width);
    assert!(columns <= stride && (rows - 1) * stride + columns <= out.len(), "{rows}x{columns} products do not fit");
    let mut row = 0;
    while row + TILE <= rows {
        strip::<L, TILE>(&weights[row * width..], inputs, width, &mut out[row * stride..], stride);
        row += TILE;
    }
    while row < rows {
        strip::<L, 1>(&weights[row * width..], inputs, width, &mut out[row * stride..], stride);
        row += 1;
    }
}

/// `W` weight rows against all inputs, four inputs at a time.
#[inline(always)]
fn strip<L: Lanes, const W: usize>(weights: &[f32], inputs: &[f32], width: usize, out: &mut [f32], stride: usize) {
    let columns = inputs.len() / width;
    let mut column = 0;
    while column + 4 <= columns {
        tile::<L, W, 4>(weights, &inputs[column * width..], width, &mut out[column..], stride);
        column += 4;
    }
    while column < columns {
        tile::<L, W, 1>(weights, &inputs[column * width..], width, &mut out[column..], stride);
        column += 1;
    }
}

#[inline(always)]
fn tile<L: Lanes, const W: usize, const X: usize>(
    weights: &[f32],
    inputs: &[f32],
    width: usize,
    out: &mut [f32],
    stride: usize,
) {
    let (weights, inputs) = (&weights[..W * width], &inputs[..X * width]);
    let whole = width - width % L::N;
    // SAFETY: `per_isa!` runs this only where `L` is available; every load is inside a row's whole vectors.
    let mut sums = unsafe { [[L::zero(); X]; W] };
    let mut at = 0;
    while at < whole {
        // SAFETY: as above.
        unsafe {
            let mut x = [L::zero(); X];
            for (j, x) in x.iter_mut().enumerate() {
                *x = L::load(inputs.as_ptr().add(j * width + at));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let w = L::load(weights.as_ptr().add(i * width + at));
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = sum.add_product(w, x);
                }
            }
        }
        at += L::N;
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: as above.
            let mut total = unsafe { sum.sum() };
            let tail = weights[i * width + whole..(i + 1) * width].iter().zip(&inputs[j * width + whole..]);
            for (w, x) in tail {
                total += w * x;
            }
            out[i * stride + j] = total;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::Noise;

    /// Rounding of a chain of at most 300 products of values below 1.
    const TOLERANCE: f64 = 2e-4;

    fn reference(weights: &[f32], inputs: &[f32], width: usize, row: usize, column: usize) -> f64 {
        let row = &weights[row * width..][..width];
        let column = &inputs[column * width..][..width];
        row.iter().zip(column).map(|(w, x)| *w as f64 * *x as f64).sum()
    }

    #[test]
    fn products_match_the_reference() {
        let mut noise = Noise::new(1);
        for isa in Isa::available() {
            for (rows, columns, width) in [(1, 1, 1), (5, 3, 15), (4, 4, 64), (9, 11, 257), (3, 6, 300)] {
                let (weights, inputs) = (noise.floats(rows * width), noise.floats(columns * width));
                let mut out = vec![0.0; rows * columns];
                products(isa, &weights, &inputs, width, &mut out, columns);
                for row in 0..rows {
                    for column in 0..columns {
                        let expected = reference(&weights, &inputs, width, row, column);
                        let got = out[row * columns + column] as f64;
                        assert!((got - expected).abs() < TOLERANCE, "{isa:?} {width}: {got} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_ignores_its_batch() {
        let (rows, columns, width) = (7, 9, 133);
        let mut noise = Noise::new(2);
        let (weights, inputs) = (noise.floats(rows * width), noise.floats(columns * width));
        for isa in Isa::available() {
            let mut together = vec![0.0; rows * columns];
            products(isa, &weights, &inputs, width, &mut together, columns);
            for (at, expected) in together.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let mut alone = [0.0];
                let weights = &weights[row * width..][..width];
                products(isa, weights, &inputs[column * width..][..width], width, &mut alone, 1);
                assert_eq!(alone[0].to_bits(), expected.to_bits(), "{isa:?} {row} {column}");
            }
        }
    }
}
