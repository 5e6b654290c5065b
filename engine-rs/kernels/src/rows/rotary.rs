//! Rotary position embedding of one head: pairs of its leading `2 * cos.len()` elements turn by the angles given; elements
//! behind them stay. The two forms differ in which elements are a pair.

use crate::isa::{Lanes, per_isa};

per_isa! {
    /// Pairs are an element of the first half and its counterpart in the second.
    ///
    /// # Panics
    /// If `sin` is not as long as `cos`, or `head` shorter than twice that.
    pub fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_halves_for
}

per_isa! {
    /// Pairs are neighbours.
    ///
    /// # Panics
    /// If `sin` is not as long as `cos`, or `head` shorter than twice that.
    pub fn rotate_interleaved(head: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_interleaved_for
}

#[inline(always)]
fn rotate_halves_for<L: Lanes>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert_eq!(cos.len(), sin.len(), "cosines and sines");
    let (near, far) = head[..2 * cos.len()].split_at_mut(cos.len());
    for (((a, b), cos), sin) in near.iter_mut().zip(far).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[inline(always)]
fn rotate_interleaved_for<L: Lanes>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert_eq!(cos.len(), sin.len(), "cosines and sines");
    for (([a, b], cos), sin) in head[..2 * cos.len()].as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::Noise;

    const TOLERANCE: f64 = 1e-6;

    /// Rotates `pairs` pairs, whose elements `pair` names, and checks all elements against the formula.
    fn check(
        isa: Isa,
        pairs: usize,
        rotate: impl Fn(&mut [f32], &[f32], &[f32]),
        pair: impl Fn(usize) -> (usize, usize),
    ) {
        let mut noise = Noise::new(pairs as u64);
        let before = noise.floats(2 * pairs + 5);
        let angles: Vec<f64> = noise.floats(pairs).iter().map(|x| f64::from(*x) * 3.0).collect();
        let table = |f: fn(f64) -> f64| angles.iter().map(|x| f(*x) as f32).collect::<Vec<f32>>();
        let mut after = before.clone();
        rotate(&mut after, &table(f64::cos), &table(f64::sin));
        for (at, angle) in angles.iter().enumerate() {
            let (i, j) = pair(at);
            let (a, b) = (f64::from(before[i]), f64::from(before[j]));
            let expected = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos());
            let off = (f64::from(after[i]) - expected.0).abs().max((f64::from(after[j]) - expected.1).abs());
            assert!(off < TOLERANCE, "{isa:?} {pairs} {at}");
        }
        assert_eq!(after[2 * pairs..], before[2 * pairs..], "{isa:?} {pairs}");
    }

    #[test]
    fn halves_turn_together() {
        for (isa, pairs) in Isa::available().into_iter().flat_map(|isa| [1, 10, 32, 64].map(|pairs| (isa, pairs))) {
            check(isa, pairs, |head, cos, sin| rotate_halves(isa, head, cos, sin), |at| (at, at + pairs));
        }
    }

    #[test]
    fn neighbours_turn_together() {
        for (isa, pairs) in Isa::available().into_iter().flat_map(|isa| [1, 10, 32, 64].map(|pairs| (isa, pairs))) {
            check(isa, pairs, |head, cos, sin| rotate_interleaved(isa, head, cos, sin), |at| (2 * at, 2 * at + 1));
        }
    }
}
