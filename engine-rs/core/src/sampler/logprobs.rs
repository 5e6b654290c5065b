//! Log probabilities as reported to the client: the log-softmax of the model's own logits, before biases, penalties,
//! temperature and filters. They say what the model thinks, whatever the sampling settings are.

use super::select::{Candidate, argmax, possible, top};

/// A token with its log probability.
pub type Scored = Candidate;

/// The chosen token and the `alternatives` most likely ones, best first. `None` if no logit is usable.
pub fn logprobs(logits: &[f32], chosen: u32, alternatives: usize) -> Option<(Scored, Vec<Scored>)> {
    let max = argmax(logits)?.value;
    let sum: f64 = possible(logits).map(|candidate| f64::from((candidate.value - max).exp())).sum();
    let shift = f64::from(max) + sum.ln();
    let score = |value: f32| (f64::from(value) - shift) as f32;
    let own = logits.get(chosen as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let best = top(possible(logits), alternatives).into_iter();
    let best = best.map(|candidate| Scored { token: candidate.token, value: score(candidate.value) });
    Some((Scored { token: chosen, value: score(own) }, best.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [2.0, -1.0, f32::NAN, 0.5, f32::NEG_INFINITY];
        let (chosen, all) = logprobs(&logits, 3, 5).unwrap();
        let sum: f32 = all.iter().map(|scored| scored.value.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(all.iter().map(|scored| scored.token).collect::<Vec<_>>(), [0, 3, 1]);
        assert_eq!(chosen, all[1]);
    }

    #[test]
    fn known_values_come_out() {
        let (chosen, top) = logprobs(&[0.0, 0.0, 0.0, 0.0], 2, 1).unwrap();
        assert!((chosen.value - 0.25_f32.ln()).abs() < 1e-6);
        assert_eq!((top.len(), top[0].token), (1, 0));
        assert_eq!(logprobs(&[f32::NAN], 0, 1), None);
    }
}
