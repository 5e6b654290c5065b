//! Stop strings: finds them across any split of the text, and never lets out a byte that may belong to one.
//! The result depends on the text alone, not on how it was cut into pieces: the match that ends first wins, and of
//! those the longest.

/// What one piece of text came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text that is certainly not part of a stop string.
    pub text: String,
    /// A stop string was found: generation ends, and the rest is dropped.
    pub stopped: bool,
}

#[derive(Debug, Clone)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// `stops` holds no empty string (requests with one are refused).
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    pub fn push(&mut self, text: &str) -> Passed {
        if self.stops.is_empty() {
            return Passed { text: text.to_owned(), stopped: false };
        }
        self.held.push_str(text);
        if let Some(start) = self.first_match() {
            self.held.truncate(start);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.held.split_off(self.held.len() - self.unsafe_tail());
        Passed { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// The text held back, once no more can come.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn first_match(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop).map(|start| (start + stop.len(), start)));
        found.min().map(|(_, start)| start)
    }

    /// Length of the longest end of the text that begins a stop string.
    fn unsafe_tail(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let text = &self.held;
        let first = text.len().saturating_sub(longest.saturating_sub(1));
        (first..text.len())
            .find(|start| {
                text.is_char_boundary(*start) && self.stops.iter().any(|stop| stop.starts_with(&text[*start..]))
            })
            .map_or(0, |start| text.len() - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces and returns all text let out, and whether it stopped.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = String::new();
        for piece in pieces {
            let passed = filter.push(piece);
            out.push_str(&passed.text);
            if passed.stopped {
                return (out, true);
            }
        }
        out.push_str(&filter.finish());
        (out, false)
    }

    const TABLE: &[(&[&str], &str, &str, bool)] = &[
        (&[], "abc", "abc", false),
        (&["x"], "abc", "abc", false),
        (&["b"], "abc", "a", true),
        (&["abc"], "abc", "", true),
        (&["END"], "the EN is no END of it", "the EN is no ", true),
        (&["aab"], "aaab", "a", true),
        (&["abab"], "abaabab", "aba", true),
        (&["abcd", "bc"], "abcx", "a", true),
        (&["bc", "abc"], "xabc", "x", true),
        (&["\n\n", "User:"], "yes\nUse \n\nno", "yes\nUse ", true),
        (&["é€"], "caéé€x", "caé", true),
        (&["é€"], "caé", "caé", false),
        (&["🙂."], "a🙂🙂.b", "a🙂", true),
    ];

    #[test]
    fn every_split_gives_the_same() {
        for (stops, text, expected, stopped) in TABLE {
            let borders: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            for first in &borders {
                for second in borders.iter().filter(|second| *second >= first) {
                    let pieces = [&text[..*first], &text[*first..*second], &text[*second..]];
                    assert_eq!(run(stops, &pieces), ((*expected).to_owned(), *stopped), "{stops:?} in {pieces:?}");
                }
            }
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let pieces: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(run(stops, &pieces), ((*expected).to_owned(), *stopped), "{stops:?} letter by letter in {text}");
        }
    }

    #[test]
    fn holds_no_more_than_needed() {
        let mut filter = StopFilter::new(vec!["END".to_owned()]);
        let let_out: Vec<String> = ["a", "E", "N", "x", "EN"].iter().map(|piece| filter.push(piece).text).collect();
        assert_eq!(let_out, ["a", "", "", "ENx", ""]);
        assert_eq!(filter.finish(), "EN");
    }
}
