//! Choosing among the rows of a logits vector by partial selection: a scan with a rising threshold, never a full sort.
//! All orders are total (logit, then lowest id), so equal input gives equal output. A NaN is never chosen.

use super::random::Random;
use quiver_kernels::{Isa, largest, weigh as weigh_all};
use std::cmp::Ordering;

/// The first nucleus tried; most distributions are decided within it.
const FIRST_NUCLEUS: usize = 64;
/// Weights of a whole vocabulary that are added up together.
const RUN: usize = 1024;

/// A token that may be chosen. `value` is its logit, later its weight relative to the most likely token (which has 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub token: u32,
    pub value: f32,
}

fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.token.cmp(&b.token))
}

/// A logit as a number that can be compared and subtracted.
fn clean(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit.min(f32::MAX) }
}

/// All tokens that have a chance at all, in the order of their ids.
pub fn possible(logits: &[f32]) -> impl Iterator<Item = Candidate> + '_ {
    let values = logits.iter().map(|logit| clean(*logit)).enumerate();
    values
        .filter(|(_, value)| *value > f32::NEG_INFINITY)
        .map(|(token, value)| Candidate { token: token as u32, value })
}

/// The most likely token, of equals the one with the lowest id; `None` if no number is usable.
pub fn argmax(logits: &[f32]) -> Option<Candidate> {
    let mut value = f32::NEG_INFINITY;
    largest(Isa::best(), logits, &mut value);
    if value == f32::NEG_INFINITY {
        return None;
    }
    let token = logits.iter().position(|logit| *logit >= value)?;
    Some(Candidate { token: token as u32, value })
}

/// Weights `exp((logit - max) / temperature)` of a whole vocabulary, for drawing from all of it.
pub struct Weights {
    values: Vec<f32>,
    /// Of each `RUN` values, so that a draw need not add up all of them.
    sums: Vec<f64>,
}

impl Weights {
    pub fn new(logits: &[f32], max: f32, temperature: f32) -> Self {
        let mut weights = Self { values: vec![0.0; logits.len()], sums: vec![0.0; logits.len().div_ceil(RUN)] };
        // All runs but the last are whole only if the vector has a whole number of them.
        let whole = logits.len() / RUN * RUN;
        let (head, tail) = weights.values.split_at_mut(whole);
        weigh_all(Isa::best(), &logits[..whole], max, temperature, head, &mut weights.sums[..whole / RUN]);
        weigh_all(Isa::best(), &logits[whole..], max, temperature, tail, &mut weights.sums[whole / RUN..]);
        weights
    }

    /// Those that are not 0, in the order of their ids.
    pub fn candidates(&self, least: f32) -> impl Iterator<Item = Candidate> + '_ {
        let values = self.values.iter().enumerate();
        values
            .filter(move |(_, value)| **value >= least && **value > 0.0)
            .map(|(token, value)| Candidate { token: token as u32, value: *value })
    }

    /// Draws one by weight; `None` if there is none.
    pub fn draw(&self, random: &mut Random) -> Option<u32> {
        let mut left = random.next_f64() * self.sums.iter().sum::<f64>();
        let mut run = 0;
        while run + 1 < self.sums.len() && left >= self.sums[run] {
            left -= self.sums[run];
            run += 1;
        }
        let start = run * RUN;
        let mut last = None;
        for (token, value) in self.values.iter().enumerate().skip(start).filter(|(_, value)| **value > 0.0) {
            last = Some(token as u32);
            left -= f64::from(*value);
            if left < 0.0 {
                return last;
            }
        }
        // Rounding carried the draw past the end.
        last.or_else(|| self.values.iter().rposition(|value| *value > 0.0).map(|token| token as u32))
    }
}

/// The `count` best candidates, best first. Keeps at most twice that many at a time.
pub fn top(candidates: impl Iterator<Item = Candidate>, count: usize) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    if count == 0 {
        return kept;
    }
    let mut threshold = f32::NEG_INFINITY;
    for candidate in candidates {
        // An equal one that comes later has a higher id (or is sorted out below).
        if candidate.value < threshold {
            continue;
        }
        kept.push(candidate);
        if kept.len() >= count.saturating_mul(2).max(32) {
            kept.select_nth_unstable_by(count - 1, best_first);
            kept.truncate(count);
            threshold = kept[count - 1].value;
        }
    }
    kept.sort_unstable_by(best_first);
    kept.truncate(count);
    kept
}

/// Turns logits into weights `exp((logit - max) / temperature)`; tokens whose weight vanishes are dropped.
pub fn weigh(candidates: &mut Vec<Candidate>, max: f32, temperature: f32) {
    candidates.retain_mut(|candidate| {
        candidate.value = ((candidate.value - max) / temperature).exp();
        candidate.value > 0.0
    });
}

/// The smallest set of the best candidates whose weights sum to at least the share `p` of all.
pub fn nucleus(candidates: Vec<Candidate>, p: f32) -> Vec<Candidate> {
    let target = total(&candidates) * f64::from(p);
    let mut count = FIRST_NUCLEUS;
    loop {
        let mut best = top(candidates.iter().copied(), count);
        let mut sum = 0.0;
        let enough = best.iter().position(|candidate| {
            sum += f64::from(candidate.value);
            sum >= target
        });
        if let Some(last) = enough {
            best.truncate(last + 1);
            return best;
        }
        if best.len() == candidates.len() {
            return best;
        }
        count = count.saturating_mul(8);
    }
}

/// Draws one by weight; `None` if there is none.
pub fn draw(candidates: &[Candidate], random: &mut Random) -> Option<u32> {
    let mut left = random.next_f64() * total(candidates);
    for candidate in candidates {
        left -= f64::from(candidate.value);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    candidates.last().map(|candidate| candidate.token)
}

fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| f64::from(candidate.value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|candidate| candidate.token).collect()
    }

    #[test]
    fn argmax_takes_the_lowest_id_of_equals() {
        const NAN: f32 = f32::NAN;
        const INF: f32 = f32::INFINITY;
        let table: &[(&[f32], Option<u32>)] = &[
            (&[], None),
            (&[NAN, NAN], None),
            (&[-INF, NAN], None),
            (&[1.0], Some(0)),
            (&[1.0, 3.0, 3.0], Some(1)),
            (&[NAN, 1.0, NAN, 2.0], Some(3)),
            (&[1.0, INF, INF], Some(1)),
            (&[-0.0, 0.0], Some(0)),
        ];
        for (logits, expected) in table {
            assert_eq!(argmax(logits).map(|best| best.token), *expected, "{logits:?}");
        }
    }

    #[test]
    fn top_equals_a_full_sort() {
        let mut random = Random::new(1);
        for round in 0..200 {
            let size = random.below(300) as usize;
            // Few distinct values, so that ties are common.
            let logits: Vec<f32> = (0..size).map(|_| random.below(1 + round) as f32).collect();
            let mut sorted: Vec<Candidate> = possible(&logits).collect();
            sorted.sort_by(best_first);
            for count in [0, 1, 2, 7, 40, 300] {
                sorted.truncate(sorted.len());
                let expected = &sorted[..count.min(sorted.len())];
                assert_eq!(top(possible(&logits), count), expected, "{count} of {size}");
            }
        }
    }

    #[test]
    fn nucleus_is_the_smallest_set() {
        let weights: [(u32, f32); 4] = [(0, 0.125), (1, 0.5), (2, 0.25), (3, 0.125)];
        let all: Vec<Candidate> =
            weights.iter().map(|(token, value)| Candidate { token: *token, value: *value }).collect();
        let table: &[(f32, &[u32])] =
            &[(1e-9, &[1]), (0.5, &[1]), (0.51, &[1, 2]), (0.75, &[1, 2]), (0.8, &[1, 2, 0]), (1.0, &[1, 2, 0, 3])];
        for (p, expected) in table {
            assert_eq!(tokens(&nucleus(all.clone(), *p)), *expected, "p = {p}");
        }
    }

    #[test]
    fn nucleus_grows_past_its_first_size() {
        let even: Vec<Candidate> = (0..1000).map(|token| Candidate { token, value: 1.0 }).collect();
        assert_eq!(nucleus(even, 0.9).len(), 900);
    }

    #[test]
    fn whole_vocabularies_draw_by_weight() {
        let mut random = Random::new(3);
        // Only tokens 5 and 2,900 can come, at one to three.
        let mut logits = vec![f32::NEG_INFINITY; 3000];
        (logits[5], logits[2900]) = (0.0, 3_f32.ln());
        let weights = Weights::new(&logits, 3_f32.ln(), 1.0);
        let drawn: Vec<u32> = (0..10_000).filter_map(|_| weights.draw(&mut random)).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(drawn.iter().all(|token| *token == 5 || *token == 2900));
        let late = drawn.iter().filter(|token| **token == 2900).count();
        assert!((7_300..7_700).contains(&late), "{late}");
        assert_eq!(tokens(&weights.candidates(0.5).collect::<Vec<_>>()), [2900]);
        assert_eq!(Weights::new(&[], 0.0, 1.0).draw(&mut random), None);
    }

    #[test]
    fn draw_follows_the_weights() {
        let mut random = Random::new(3);
        let candidates = [Candidate { token: 4, value: 1.0 }, Candidate { token: 9, value: 3.0 }];
        let nines = (0..10_000).filter(|_| draw(&candidates, &mut random) == Some(9)).count();
        assert!((7_300..7_700).contains(&nines), "{nines}");
        assert_eq!(draw(&[], &mut random), None);
    }
}
