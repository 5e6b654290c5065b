//! Which texts of the waiting requests are computed next: one of each request in turn, so that a request with a thousand
//! texts does not hold up one with a single sentence. Pure bookkeeping.

/// How far one request has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Tokens of each of its texts.
    pub lengths: Vec<usize>,
    /// Texts that are computed.
    pub done: usize,
}

/// For each request how many of its next texts to compute: at least one text in all, if there is any, and no more than
/// `tokens` tokens otherwise.
pub fn choose(requests: &[Progress], tokens: usize) -> Vec<usize> {
    let mut chosen = vec![0; requests.len()];
    let mut left = tokens;
    let mut any = false;
    loop {
        let before = chosen.iter().sum::<usize>();
        for (request, chosen) in requests.iter().zip(&mut chosen) {
            match request.lengths.get(request.done + *chosen) {
                Some(length) if *length <= left || !any => {
                    left = left.saturating_sub(*length);
                    *chosen += 1;
                    any = true;
                }
                _ => {}
            }
        }
        if chosen.iter().sum::<usize>() == before {
            return chosen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_turns() {
        /// (texts of each request, how many are done), budget, expected.
        type Case = (&'static [(&'static [usize], usize)], usize, &'static [usize]);
        let cases: [Case; 7] = [
            (&[], 10, &[]),
            (&[(&[5, 5, 5], 0)], 10, &[2]),
            (&[(&[50], 0)], 10, &[1]),
            (&[(&[50], 0), (&[1], 0)], 10, &[1, 0]),
            (&[(&[4, 4, 4, 4], 0), (&[4], 0)], 12, &[2, 1]),
            (&[(&[4, 4, 4, 4], 3), (&[4, 4], 2)], 12, &[1, 0]),
            (&[(&[9, 1], 0), (&[9], 0), (&[1], 0)], 10, &[1, 0, 1]),
        ];
        for (requests, tokens, expected) in cases {
            let progress = |(lengths, done): &(&[usize], usize)| Progress { lengths: lengths.to_vec(), done: *done };
            let requests: Vec<Progress> = requests.iter().map(progress).collect();
            assert_eq!(choose(&requests, tokens), expected, "{requests:?}");
        }
    }
}
