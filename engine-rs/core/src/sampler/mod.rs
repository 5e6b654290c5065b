//! From a row of logits to the next token. One sampler per request, with a random generator of its own, so that a seed
//! gives the same tokens whatever else runs in the batch.
//!
//! Order: biases, penalties, temperature, top-k, top-p of what is left, min-p relative to the most likely token.
//! Temperature comes before the filters, as in OpenAI's and Hugging Face's interfaces.

pub mod logprobs;
pub mod penalties;
pub mod random;
pub mod select;

use crate::error::{Error, Result};
use crate::request::GenerateRequest;
use penalties::Penalties;
use random::Random;
use select::{Candidate, Weights, argmax, draw, nucleus, possible, top, weigh};

#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    penalties: Penalties,
    random: Random,
}

impl Sampler {
    /// `fallback_seed` is used where the request names none.
    pub fn new(request: &GenerateRequest, prompt: &[u32], fallback_seed: u64) -> Self {
        Self {
            temperature: request.temperature,
            top_k: request.top_k as usize,
            top_p: request.top_p,
            min_p: request.min_p,
            penalties: Penalties::new(request, prompt),
            random: Random::new(request.seed.unwrap_or(fallback_seed)),
        }
    }

    /// Chooses the next token and remembers it for the penalties.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let token = if self.penalties.active() {
            let mut changed = logits.to_vec();
            self.penalties.apply(&mut changed);
            self.choose(&changed)
        } else {
            self.choose(logits)
        };
        let token = token.ok_or(Error::NoFiniteLogits)?;
        self.penalties.record(token);
        Ok(token)
    }

    fn choose(&mut self, logits: &[f32]) -> Option<u32> {
        let best = argmax(logits)?;
        if self.temperature <= 0.0 {
            return Some(best.token);
        }
        let mut candidates: Vec<Candidate> = match self.top_k {
            0 => {
                let weights = Weights::new(logits, best.value, self.temperature);
                if self.top_p >= 1.0 && self.min_p <= 0.0 {
                    return weights.draw(&mut self.random);
                }
                weights.candidates(0.0).collect()
            }
            count => {
                let mut best_few = top(possible(logits), count);
                weigh(&mut best_few, best.value, self.temperature);
                best_few
            }
        };
        if self.top_p < 1.0 {
            candidates = nucleus(candidates, self.top_p);
        }
        if self.min_p > 0.0 {
            candidates.retain(|candidate| candidate.value >= self.min_p);
        }
        draw(&candidates, &mut self.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use std::collections::BTreeSet;

    type Change = fn(&mut GenerateRequest);

    fn sampler(change: Change) -> Sampler {
        let mut request = GenerateRequest::new(Prompt::Tokens(vec![0]));
        request.seed = Some(11);
        change(&mut request);
        Sampler::new(&request, &[0], 0)
    }

    /// All tokens that come out of many draws from the same logits.
    fn reachable(change: Change, logits: &[f32]) -> Vec<u32> {
        let mut sampler = sampler(change);
        let drawn: BTreeSet<u32> = (0..2000).map(|_| sampler.sample(logits).unwrap()).collect();
        drawn.into_iter().collect()
    }

    #[test]
    fn filters_leave_the_right_tokens() {
        // Weights 1, 1/2, 1/4, 1/8 of the sum 15/8: shares .53 .27 .13 .07.
        let ln2 = std::f32::consts::LN_2;
        let logits = [0.0, -ln2, -2.0 * ln2, -3.0 * ln2, f32::NAN, f32::NEG_INFINITY];
        let table: &[(Change, &[u32])] = &[
            (|_| (), &[0, 1, 2, 3]),
            (|request| request.temperature = 0.0, &[0]),
            (|request| request.temperature = 1e-4, &[0]),
            (|request| request.top_k = 1, &[0]),
            (|request| request.top_k = 3, &[0, 1, 2]),
            (|request| request.top_k = 99, &[0, 1, 2, 3]),
            (|request| request.top_p = 0.5, &[0]),
            (|request| request.top_p = 0.6, &[0, 1]),
            (|request| request.min_p = 0.25, &[0, 1, 2]),
            (|request| request.min_p = 1.0, &[0]),
            (|request| (request.top_k, request.top_p) = (2, 0.66), &[0]),
            (|request| (request.top_k, request.min_p) = (3, 0.3), &[0, 1]),
            (|request| request.logit_bias = vec![(0, -100.0)], &[1, 2, 3]),
            (|request| request.logit_bias = vec![(3, 100.0)], &[3]),
            (|request| request.logit_bias = vec![(4, 100.0)], &[0, 1, 2, 3]),
        ];
        for (row, (change, expected)) in table.iter().enumerate() {
            assert_eq!(reachable(*change, &logits), *expected, "row {row}");
        }
    }

    #[test]
    fn shares_follow_temperature() {
        let logits = [0.0, -std::f32::consts::LN_2];
        let table: [(Change, std::ops::Range<usize>); 2] =
            [(|_| (), 6_400..6_900), (|request| request.temperature = 0.5, 7_750..8_250)];
        for (change, expected) in table {
            let mut sampler = sampler(change);
            let zeros = (0..10_000).filter(|_| sampler.sample(&logits).unwrap() == 0).count();
            assert!(expected.contains(&zeros), "{zeros} not in {expected:?}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_tokens() {
        let logits: Vec<f32> = (0..500).map(|token| (token % 17) as f32 / 5.0).collect();
        let run = |seed: Option<u64>, fallback: u64| {
            let mut request = GenerateRequest::new(Prompt::Tokens(vec![0]));
            (request.seed, request.top_p) = (seed, 0.9);
            let mut sampler = Sampler::new(&request, &[0], fallback);
            (0..50).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(Some(5), 1), run(Some(5), 2));
        assert_ne!(run(Some(5), 1), run(Some(6), 1));
        assert_eq!(run(None, 1), run(Some(1), 9));
    }

    #[test]
    fn penalties_reach_the_choice() {
        let logits = [1.0, 0.9, 0.0];
        let mut sampler = sampler(|request| (request.temperature, request.presence_penalty) = (0.0, 0.5));
        let tokens: Vec<u32> = (0..3).map(|_| sampler.sample(&logits).unwrap()).collect();
        assert_eq!(tokens, [0, 1, 0]);
    }

    #[test]
    fn unusable_logits_are_an_error() {
        for logits in [vec![], vec![f32::NAN; 4], vec![f32::NEG_INFINITY; 4]] {
            let error = sampler(|_| ()).sample(&logits).unwrap_err();
            assert_eq!(error.code(), "no_finite_logits", "{logits:?}");
        }
    }
}
