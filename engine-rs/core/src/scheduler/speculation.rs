//! Guessing the next tokens of a sequence from its own text: where its last few tokens occurred before, what followed
//! them then may follow again. A guess is checked by computing it beside the token that is due, which on a processor
//! waiting for its memory costs little; whether it was right changes how soon tokens come, never which.

/// The most tokens guessed at a time: with the one that is due they fill a kernel's eight rows.
pub const MOST: usize = 7;
/// A place is worth guessing from if so many tokens before it are the same.
const LEAST_MATCH: usize = 3;
/// Longer matches are not told apart.
const MOST_MATCH: usize = 16;
/// How far back to look: bounds the time that a guess takes.
const REACH: usize = 16_384;
/// After this many guesses in a row of which no token was right, tokens are generated without for a while: twice as many
/// each time, up to `LONGEST_REST`.
const PATIENCE: u32 = 2;
const FIRST_REST: u32 = 16;
const LONGEST_REST: u32 = 512;

/// How well guessing works for one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speculation {
    /// Tokens of the next guess.
    length: usize,
    misses: u32,
    /// Steps to go without, and how many it will be the next time.
    resting: u32,
    rest: u32,
}

impl Default for Speculation {
    fn default() -> Self {
        Self { length: 3, misses: 0, resting: 0, rest: FIRST_REST }
    }
}

impl Speculation {
    /// A guess of at most `most` tokens at what follows `tokens`; empty where there is none.
    pub fn guess(&mut self, tokens: &[u32], most: usize) -> Vec<u32> {
        if self.resting > 0 {
            self.resting -= 1;
            return Vec::new();
        }
        continuation(tokens, self.length.min(most))
    }

    /// Of a guess of `guessed` tokens `right` were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        if right == guessed {
            self.length = (self.length * 2).min(MOST);
        } else {
            self.length = (right + 1).min(MOST);
        }
        if right > 0 {
            (self.misses, self.rest) = (0, FIRST_REST);
            return;
        }
        self.misses += 1;
        if self.misses >= PATIENCE {
            (self.misses, self.resting) = (0, self.rest);
            self.rest = (self.rest * 2).min(LONGEST_REST);
        }
    }
}

/// What followed the longest earlier occurrence of the end of `tokens`, the latest of equals. What follows the end of
/// `tokens` there is the guess itself: so a text that repeats itself goes on.
fn continuation(tokens: &[u32], length: usize) -> Vec<u32> {
    let mut guess = Vec::new();
    if let Some(start) = earlier(tokens) {
        for at in start..start + length {
            guess.extend(tokens.get(at).copied().or_else(|| guess.get(at - tokens.len()).copied()));
        }
    }
    guess
}

/// The place after that occurrence.
fn earlier(tokens: &[u32]) -> Option<usize> {
    let (last, before) = tokens.split_last()?;
    let (mut best, mut best_match) = (None, LEAST_MATCH - 1);
    let earliest = before.len().saturating_sub(REACH);
    for end in (earliest..before.len()).rev().filter(|end| before[*end] == *last) {
        let pairs = before[..end].iter().rev().zip(before.iter().rev());
        let matched = 1 + pairs.take(MOST_MATCH - 1).take_while(|(earlier, now)| earlier == now).count();
        if matched > best_match {
            (best, best_match) = (Some(end + 1), matched);
        }
        if matched == MOST_MATCH {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_match_is_continued() {
        let table: &[(&str, usize, &str)] = &[
            ("", 4, ""),
            ("abc", 4, ""),
            ("abcd.abc", 4, "d.ab"),
            ("abcd.abc", 1, "d"),
            ("bcd.abc", 4, ""),
            // The longer match, though it is further away.
            ("wxyz1.abyz2.wxyz", 2, "1."),
            ("xyz1.xyz2.xyz", 1, "2"),
            ("aaaa", 3, "aaa"),
            ("xababab", 5, "ababa"),
        ];
        for (text, length, expected) in table {
            let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
            let expected: Vec<u32> = expected.bytes().map(u32::from).collect();
            assert_eq!(continuation(&tokens, *length), expected, "{text}");
        }
    }

    #[test]
    fn length_follows_success() {
        let mut speculation = Speculation::default();
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
        let mut guessed = |learn: Option<(usize, usize)>| {
            learn.inspect(|(guessed, right)| speculation.learn(*guessed, *right));
            speculation.guess(&tokens, 99).len()
        };
        assert_eq!(guessed(None), 3);
        assert_eq!(guessed(Some((3, 3))), 6);
        assert_eq!(guessed(Some((6, 6))), 7);
        assert_eq!(guessed(Some((7, 2))), 3);
        assert_eq!(guessed(Some((3, 0))), 1);
        assert_eq!(guessed(Some((1, 1))), 2);
    }

    #[test]
    fn failure_rests_longer_each_time() {
        let mut speculation = Speculation::default();
        let tokens = [1, 2, 3, 4, 1, 2, 3];
        let mut steps_until_next = || {
            let steps = (0..).find(|_| !speculation.guess(&tokens, 9).is_empty()).unwrap();
            speculation.learn(1, 0);
            steps
        };
        let rests: Vec<u32> = (0..18).map(|_| steps_until_next()).collect();
        assert_eq!(rests, [0, 0, 16, 0, 32, 0, 64, 0, 128, 0, 256, 0, 512, 0, 512, 0, 512, 0]);
    }
}
