//! Changes to the logits before a choice: the client's biases and the three penalties. As in OpenAI's and vLLM's
//! interfaces, frequency and presence count generated tokens only; repetition looks at the prompt too.

use crate::request::GenerateRequest;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub struct Penalties {
    bias: Vec<(u32, f32)>,
    frequency: f32,
    presence: f32,
    repetition: f32,
    /// How often each token of the prompt or the answer was generated.
    generated: BTreeMap<u32, u32>,
}

impl Penalties {
    pub fn new(request: &GenerateRequest, prompt: &[u32]) -> Self {
        let seen: &[u32] = if request.repetition_penalty == 1.0 { &[] } else { prompt };
        Self {
            bias: request.logit_bias.clone(),
            frequency: request.frequency_penalty,
            presence: request.presence_penalty,
            repetition: request.repetition_penalty,
            generated: seen.iter().map(|token| (*token, 0)).collect(),
        }
    }

    fn counts(&self) -> bool {
        self.frequency != 0.0 || self.presence != 0.0 || self.repetition != 1.0
    }

    /// Whether `apply` changes anything.
    pub fn active(&self) -> bool {
        !self.bias.is_empty() || self.counts()
    }

    pub fn record(&mut self, token: u32) {
        if self.counts() {
            *self.generated.entry(token).or_default() += 1;
        }
    }

    /// Tokens outside the vocabulary are skipped.
    pub fn apply(&self, logits: &mut [f32]) {
        for (token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        for (token, count) in &self.generated {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit = self.penalized(*logit, *count);
            }
        }
    }

    fn penalized(&self, logit: f32, count: u32) -> f32 {
        let repeated = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
        let present = if count > 0 { self.presence } else { 0.0 };
        repeated - self.frequency * count as f32 - present
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;

    fn applied(change: fn(&mut GenerateRequest), prompt: &[u32], generated: &[u32]) -> Vec<f32> {
        let mut request = GenerateRequest::new(Prompt::Tokens(prompt.to_vec()));
        change(&mut request);
        let mut penalties = Penalties::new(&request, prompt);
        generated.iter().for_each(|token| penalties.record(*token));
        let mut logits = vec![1.0, -1.0, 2.0, 0.0];
        penalties.apply(&mut logits);
        logits
    }

    #[test]
    fn each_field_changes_what_it_says() {
        type Change = fn(&mut GenerateRequest);
        type Row<'a> = (Change, &'a [u32], &'a [u32], [f32; 4]);
        let table: &[Row<'_>] = &[
            (|_| (), &[0], &[1, 1], [1.0, -1.0, 2.0, 0.0]),
            (|request| request.logit_bias = vec![(1, 5.0), (99, 1.0)], &[], &[], [1.0, 4.0, 2.0, 0.0]),
            (|request| request.frequency_penalty = 0.5, &[0], &[1, 1, 2], [1.0, -2.0, 1.5, 0.0]),
            (|request| request.presence_penalty = 0.5, &[0], &[1, 1, 2], [1.0, -1.5, 1.5, 0.0]),
            (|request| request.repetition_penalty = 2.0, &[0], &[1, 1], [0.5, -2.0, 2.0, 0.0]),
        ];
        for (index, (change, prompt, generated, expected)) in table.iter().enumerate() {
            assert_eq!(applied(*change, prompt, generated), expected, "row {index}");
        }
    }
}
