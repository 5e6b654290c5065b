//! How many tokens a step may have so that it takes about as long as it should. Learnt from the steps before: models and
//! machines differ by a factor of a thousand, and a step is the time between two tokens of every stream, and the time
//! within which a cancellation takes effect.

use std::time::Duration;

/// What a step should take while a stream waits for it: 12 tokens a second in each stream while prompts are read.
const STREAMING: Duration = Duration::from_millis(80);
/// And while none does: longer steps read a prompt somewhat faster, but whoever comes next waits for their end.
const READING: Duration = Duration::from_millis(250);
/// Steps of so few tokens tell what a step takes in any case. Also the fewest tokens that are ever asked for.
const FEW: usize = 8;
/// Weight of the newest step in the averages.
const NEWEST: f64 = 0.3;

#[derive(Debug, Clone)]
pub struct Pace {
    most: usize,
    /// Seconds that a step takes in any case, and for each token; once known.
    fixed: Option<f64>,
    each: Option<f64>,
}

impl Pace {
    /// `most` tokens at the most, however fast the machine.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), fixed: None, each: None }
    }

    /// A step of `tokens` tokens took `elapsed`.
    pub fn observe(&mut self, tokens: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if tokens <= FEW {
            average(&mut self.fixed, seconds);
        } else {
            let variable = (seconds - self.fixed.unwrap_or(0.0)).max(0.0);
            average(&mut self.each, variable / tokens as f64);
        }
    }

    /// Tokens for the next step, for which streams wait or not. Where a step takes long in any case it may take twice
    /// that, not much more: with fewer tokens prompts would take for ever, and the streams would hardly be faster.
    pub fn tokens(&self, streaming: bool) -> usize {
        let Some(each) = self.each else {
            return (FEW * 4).min(self.most);
        };
        let target = if streaming { STREAMING } else { READING };
        let fixed = self.fixed.unwrap_or(0.0);
        let room = (target.as_secs_f64() - fixed).max(fixed);
        ((room / each) as usize).clamp(FEW.min(self.most), self.most)
    }
}

fn average(value: &mut Option<f64>, newest: f64) {
    let old = value.unwrap_or(newest);
    *value = Some(old + (newest - old) * NEWEST);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step length that comes out where a step takes `fixed` and `each` per token; `decodes` between any two.
    fn settles(fixed: Duration, each: Duration, decodes: usize, streaming: bool) -> usize {
        let mut pace = Pace::new(512);
        for _ in 0..300 {
            let tokens = pace.tokens(streaming);
            pace.observe(tokens, fixed + each * tokens as u32);
            (0..decodes).for_each(|_| pace.observe(1, fixed + each));
        }
        pace.tokens(streaming)
    }

    #[test]
    fn steps_take_what_they_should() {
        let (ms, us) = (Duration::from_millis, Duration::from_micros);
        let table = [
            (ms(0), us(1), 512..=512, 512..=512),
            (ms(0), ms(1), 70..=85, 235..=255),
            (ms(20), us(500), 110..=130, 440..=470),
            (ms(60), ms(1), 55..=65, 180..=195),
            (ms(0), ms(50), 8..=8, 8..=8),
            (ms(500), ms(1), 480..=512, 480..=512),
        ];
        for (fixed, each, streaming, reading) in table {
            let tokens = settles(fixed, each, 1, true);
            assert!(streaming.contains(&tokens), "{fixed:?} + {each:?}: {tokens} tokens");
            let tokens = settles(fixed, each, 1, false);
            assert!(reading.contains(&tokens), "{fixed:?} + {each:?}: {tokens} tokens");
        }
        // Also while nothing decodes: few tokens are tried once, and tell.
        assert!(settles(ms(500), ms(1), 0, false) > 400);
    }

    #[test]
    fn starts_small_and_stays_within_most() {
        assert_eq!(Pace::new(512).tokens(false), 32);
        assert_eq!(Pace::new(4).tokens(true), 4);
        let mut pace = Pace::new(512);
        pace.observe(100, Duration::ZERO);
        assert_eq!(pace.tokens(true), 512);
    }
}
