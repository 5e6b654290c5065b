//! Rotary positions in halves: element `i` of a head turns with element `i + width/2`.

/// The angles of every position up to the longest text of a batch.
pub struct Rotation {
    half: usize,
    /// (cosine, sine) for each position and pair.
    angles: Vec<(f32, f32)>,
}

impl Rotation {
    pub fn new(base: f32, width: usize, positions: usize) -> Rotation {
        let half = width / 2;
        let frequency = |pair: usize| f64::from(base).powf(-2.0 * pair as f64 / width as f64);
        let frequencies: Vec<f64> = (0..half).map(frequency).collect();
        let angles = (0..positions).flat_map(|position| frequencies.iter().map(move |f| position as f64 * f));
        Rotation { half, angles: angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).collect() }
    }

    pub fn turn(&self, row: &mut [f32], position: usize) {
        let (first, second) = row.split_at_mut(self.half);
        let angles = &self.angles[position * self.half..][..self.half];
        for ((first, second), (cosine, sine)) in first.iter_mut().zip(second).zip(angles) {
            (*first, *second) = (*first * cosine - *second * sine, *first * sine + *second * cosine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_halves_by_position() {
        let rotation = Rotation::new(100.0, 4, 3);
        let mut row = [1.0, 2.0, 0.0, 0.0];
        rotation.turn(&mut row, 0);
        assert_eq!(row, [1.0, 2.0, 0.0, 0.0]);
        rotation.turn(&mut row, 2);
        // Angles 2 and 2/10.
        let expected = [2f64.cos(), 2.0 * 0.2f64.cos(), 2f64.sin(), 2.0 * 0.2f64.sin()];
        for (got, expected) in row.iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{row:?}");
        }
    }
}
