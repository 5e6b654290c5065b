//! How the tokens of one step are shared out: a pure function over plain values.

use super::SeqId;

/// Consecutive tokens of one sequence to compute in this step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: SeqId,
    pub start: usize,
    /// Tokens of the sequence, the guessed ones not counted.
    pub len: usize,
    /// The row ends with the sequence's last token: its logits give the next one.
    pub samples: bool,
    /// Guessed tokens to compute after it, each of which may be wrong. Only where it samples.
    pub guess: Vec<u32>,
}

impl Row {
    /// Where the sequence's positions that the row writes end.
    pub fn end(&self) -> usize {
        self.start + self.len + self.guess.len()
    }

    /// How many tokens are computed for it.
    pub fn width(&self) -> usize {
        self.len + self.guess.len()
    }
}

/// A sequence that could be computed now.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    pub id: SeqId,
    pub start: usize,
    pub remaining: usize,
}

/// Every decoding sequence gets its token. What is left of `budget`, but at least `least_prompt`, goes to prompts: half
/// to the first, so that none starves, the rest to the shortest, so that a short prompt does not wait for a long one;
/// what they leave goes to the first again. `demands` are in the order of rank.
pub fn share(demands: &[Demand], budget: usize, least_prompt: usize) -> Vec<Row> {
    let (decoding, mut prompts): (Vec<&Demand>, Vec<&Demand>) =
        demands.iter().partition(|demand| demand.remaining == 1);
    let mut rows: Vec<Row> = decoding.into_iter().map(|demand| row(demand, 1)).collect();
    let mut left = budget.saturating_sub(rows.len()).max(least_prompt);
    if prompts.is_empty() {
        return rows;
    }
    let first = prompts.remove(0);
    let mut reserved = first.remaining.min(left.div_ceil(2));
    left -= reserved;
    // Stable: equals stay in the order of rank.
    prompts.sort_by_key(|demand| demand.remaining);
    let mut others = Vec::new();
    for demand in prompts {
        let len = demand.remaining.min(left);
        if len == 0 {
            break;
        }
        left -= len;
        others.push(row(demand, len));
    }
    reserved += (first.remaining - reserved).min(left);
    rows.push(row(first, reserved));
    rows.append(&mut others);
    rows
}

fn row(demand: &Demand, len: usize) -> Row {
    Row { id: demand.id, start: demand.start, len, samples: len == demand.remaining, guess: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each sequence gets of a budget of 10 (at least 4 for prompts), given what remains of each.
    fn shares(remaining: &[usize]) -> Vec<(SeqId, usize)> {
        let demands: Vec<Demand> = remaining
            .iter()
            .enumerate()
            .map(|(id, remaining)| Demand { id: id as SeqId, start: 3, remaining: *remaining })
            .collect();
        share(&demands, 10, 4).iter().map(|row| (row.id, row.len)).collect()
    }

    #[test]
    fn budget_goes_round() {
        type Row<'a> = (&'a [usize], &'a [(SeqId, usize)]);
        let table: &[Row<'_>] = &[
            (&[], &[]),
            (&[1], &[(0, 1)]),
            (&[30], &[(0, 10)]),
            (&[4], &[(0, 4)]),
            (&[30, 1, 1], &[(1, 1), (2, 1), (0, 8)]),
            (&[30, 2], &[(0, 8), (1, 2)]),
            (&[30, 20, 3], &[(0, 5), (2, 3), (1, 2)]),
            (&[2, 30, 30], &[(0, 2), (1, 8)]),
            (&[30, 5, 5], &[(0, 5), (1, 5)]),
            (
                &[1; 12],
                &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1), (11, 1)],
            ),
            (&[1, 1, 1, 1, 1, 1, 1, 1, 30], &[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (8, 4)]),
        ];
        for (remaining, expected) in table {
            assert_eq!(shares(remaining), *expected, "{remaining:?}");
        }
    }

    #[test]
    fn only_the_last_row_samples() {
        let demands = [Demand { id: 1, start: 0, remaining: 25 }, Demand { id: 2, start: 7, remaining: 1 }];
        let rows = share(&demands, 10, 4);
        assert_eq!(rows[0], Row { id: 2, start: 7, len: 1, samples: true, guess: vec![] });
        assert_eq!(rows[1], Row { id: 1, start: 0, len: 9, samples: false, guess: vec![] });
    }
}
