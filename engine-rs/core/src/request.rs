//! What a client asks of the engine, read from JSON and checked field by field, so that every refusal names its field.
//! Nothing here knows a model: limits that depend on one (vocabulary, context) are checked by the engine.

use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The most alternatives per token that `logprobs` may ask for (as OpenAI's `top_logprobs`).
pub const MAX_ALTERNATIVES: u32 = 20;
/// The most stop strings of one request, and the longest one in bytes: held-back text is bounded by it.
pub const MAX_STOPS: usize = 16;
pub const MAX_STOP_BYTES: usize = 1024;
pub const DEFAULT_WINDOW: u32 = 256;
const MAX_WINDOW: u32 = 65_536;
const MAX_PRIORITY: i32 = 100;

/// What the model continues.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation for the model's chat template: `{"messages": [..]}`.
    Messages(Value),
    /// Plain text: `{"text": ".."}`. Names of special tokens in it are text.
    Text(String),
    /// Token ids as they are: `{"tokens": [..]}`.
    Tokens(Vec<u32>),
}

/// One generation. Absent and `null` fields take the defaults of [`GenerateRequest::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    /// Further variables for the chat template, such as `tools`.
    pub template_arguments: Map<String, Value>,
    /// `None`: up to the end of the context.
    pub max_tokens: Option<u32>,
    /// 0 picks the most likely token.
    pub temperature: f32,
    pub top_p: f32,
    /// 0: no limit.
    pub top_k: u32,
    pub min_p: f32,
    pub seed: Option<u64>,
    /// Taken off a token's logit for each time it was generated.
    pub frequency_penalty: f32,
    /// Taken off the logit of every token that was generated.
    pub presence_penalty: f32,
    /// Divides (multiplies, below zero) the logit of every token in the prompt or the answer.
    pub repetition_penalty: f32,
    pub logit_bias: Vec<(u32, f32)>,
    pub stop: Vec<String>,
    /// How many alternatives to report beside each chosen token; `None`: no log probabilities at all.
    pub logprobs: Option<u32>,
    pub ignore_eos: bool,
    /// How many tokens may be sent beyond those the client has acknowledged.
    pub window: u32,
    /// Higher goes first; the order of arrival among equals.
    pub priority: i32,
    /// The request fails if it has not begun so long after its submission.
    pub deadline_ms: Option<u64>,
    /// Whether the next tokens may be guessed from the text before, which changes nothing but the time; `None`: as the
    /// engine is set.
    pub speculate: Option<bool>,
    /// Requests of one scope may reuse what others of it have computed; who shares one may notice that they do.
    pub scope: String,
}

impl GenerateRequest {
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            template_arguments: Map::new(),
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            seed: None,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            stop: Vec::new(),
            logprobs: None,
            ignore_eos: false,
            window: DEFAULT_WINDOW,
            priority: 0,
            deadline_ms: None,
            speculate: None,
            scope: String::new(),
        }
    }

    /// Reads and checks a request. Errors are [`Error::InvalidRequest`] and name the field.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| Error::invalid("request", error.to_string()))?;
        let request = Self::from_fields(&mut fields)?;
        if let Some(unknown) = fields.keys().next() {
            return Err(Error::invalid(unknown, "there is no such field"));
        }
        request.check()?;
        Ok(request)
    }

    fn from_fields(fields: &mut Map<String, Value>) -> Result<Self> {
        let mut request = Self::new(read_prompt(fields)?);
        read(fields, "template_arguments", &mut request.template_arguments)?;
        read_optional(fields, "max_tokens", &mut request.max_tokens)?;
        read(fields, "temperature", &mut request.temperature)?;
        read(fields, "top_p", &mut request.top_p)?;
        read(fields, "top_k", &mut request.top_k)?;
        read(fields, "min_p", &mut request.min_p)?;
        read_optional(fields, "seed", &mut request.seed)?;
        read(fields, "frequency_penalty", &mut request.frequency_penalty)?;
        read(fields, "presence_penalty", &mut request.presence_penalty)?;
        read(fields, "repetition_penalty", &mut request.repetition_penalty)?;
        request.logit_bias = read_bias(fields)?;
        read(fields, "stop", &mut request.stop)?;
        read_optional(fields, "logprobs", &mut request.logprobs)?;
        read(fields, "ignore_eos", &mut request.ignore_eos)?;
        read(fields, "window", &mut request.window)?;
        read(fields, "priority", &mut request.priority)?;
        read_optional(fields, "deadline_ms", &mut request.deadline_ms)?;
        read_optional(fields, "speculate", &mut request.speculate)?;
        read(fields, "scope", &mut request.scope)?;
        Ok(request)
    }

    /// Checks every limit that needs no model.
    pub fn check(&self) -> Result<()> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("repetition_penalty", self.repetition_penalty, 0.01, 10.0)?;
        for (_, bias) in &self.logit_bias {
            within("logit_bias", *bias, -100.0, 100.0)?;
        }
        within("max_tokens", self.max_tokens.unwrap_or(1), 1, u32::MAX)?;
        within("logprobs", self.logprobs.unwrap_or(0), 0, MAX_ALTERNATIVES)?;
        within("window", self.window, 1, MAX_WINDOW)?;
        within("stop", self.stop.len(), 0, MAX_STOPS)?;
        within("priority", self.priority, -MAX_PRIORITY, MAX_PRIORITY)?;
        if self.stop.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            return Err(Error::invalid("stop", format!("each must have 1 to {MAX_STOP_BYTES} bytes")));
        }
        match &self.prompt {
            Prompt::Messages(Value::Array(messages)) if !messages.is_empty() => Ok(()),
            Prompt::Messages(_) => Err(Error::invalid("prompt", "`messages` must be a list with at least one message")),
            Prompt::Tokens(tokens) if tokens.is_empty() => Err(Error::invalid("prompt", "`tokens` must not be empty")),
            Prompt::Text(_) | Prompt::Tokens(_) => Ok(()),
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(field: &str, value: T, low: T, high: T) -> Result<()> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{value} is not between {low} and {high}")))
}

/// Takes `name` out of `fields` into `target`; an absent or null field leaves it as it is.
fn read<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str, target: &mut T) -> Result<()> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(()),
        Some(value) => {
            *target = serde_json::from_value(value).map_err(|error| Error::invalid(name, error.to_string()))?;
            Ok(())
        }
    }
}

fn read_optional<T: DeserializeOwned>(
    fields: &mut Map<String, Value>,
    name: &str,
    target: &mut Option<T>,
) -> Result<()> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(()),
        Some(value) => {
            let value = serde_json::from_value(value).map_err(|error| Error::invalid(name, error.to_string()))?;
            *target = Some(value);
            Ok(())
        }
    }
}

fn read_prompt(fields: &mut Map<String, Value>) -> Result<Prompt> {
    const SHAPE: &str = "must be one of {\"messages\": [..]}, {\"text\": \"..\"}, {\"tokens\": [..]}";
    let Some(Value::Object(mut kinds)) = fields.shift_remove("prompt") else {
        return Err(Error::invalid("prompt", SHAPE));
    };
    if kinds.len() != 1 {
        return Err(Error::invalid("prompt", SHAPE));
    }
    let wrong = |error: serde_json::Error| Error::invalid("prompt", error.to_string());
    if let Some(messages) = kinds.shift_remove("messages") {
        Ok(Prompt::Messages(messages))
    } else if let Some(text) = kinds.shift_remove("text") {
        Ok(Prompt::Text(serde_json::from_value(text).map_err(wrong)?))
    } else if let Some(tokens) = kinds.shift_remove("tokens") {
        Ok(Prompt::Tokens(serde_json::from_value(tokens).map_err(wrong)?))
    } else {
        Err(Error::invalid("prompt", SHAPE))
    }
}

/// `logit_bias` has token ids as keys, and JSON keys are strings. Sorted, so that equal requests are equal values.
fn read_bias(fields: &mut Map<String, Value>) -> Result<Vec<(u32, f32)>> {
    let mut named: Map<String, Value> = Map::new();
    read(fields, "logit_bias", &mut named)?;
    let mut biases = Vec::with_capacity(named.len());
    for (name, value) in named {
        let token = name.parse().map_err(|_| Error::invalid("logit_bias", format!("`{name}` is not a token id")))?;
        let bias = serde_json::from_value(value).map_err(|error| Error::invalid("logit_bias", error.to_string()))?;
        biases.push((token, bias));
    }
    biases.sort_by_key(|(token, _)| *token);
    Ok(biases)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field_of(json: &str) -> String {
        match GenerateRequest::from_json(json.as_bytes()) {
            Ok(_) => "accepted".to_owned(),
            Err(Error::InvalidRequest { field, .. }) => field,
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn refusals_name_their_field() {
        let table = [
            (r#"{"prompt":{"text":"a"}}"#, "accepted"),
            (r#"{"prompt":{"tokens":[1,2]},"max_tokens":null,"stop":null}"#, "accepted"),
            (r#"{"prompt":{"messages":[{"role":"user","content":"hi"}]},"logit_bias":{"7":-100}}"#, "accepted"),
            ("", "request"),
            ("[]", "request"),
            ("{}", "prompt"),
            (r#"{"prompt":"a"}"#, "prompt"),
            (r#"{"prompt":{"text":"a","tokens":[1]}}"#, "prompt"),
            (r#"{"prompt":{"tokens":[]}}"#, "prompt"),
            (r#"{"prompt":{"tokens":[-1]}}"#, "prompt"),
            (r#"{"prompt":{"messages":[]}}"#, "prompt"),
            (r#"{"prompt":{"text":"a"},"tempratur":1}"#, "tempratur"),
            (r#"{"prompt":{"text":"a"},"temperature":-0.1}"#, "temperature"),
            (r#"{"prompt":{"text":"a"},"temperature":"hot"}"#, "temperature"),
            (r#"{"prompt":{"text":"a"},"temperature":1e39}"#, "temperature"),
            (r#"{"prompt":{"text":"a"},"top_p":0}"#, "top_p"),
            (r#"{"prompt":{"text":"a"},"top_k":-1}"#, "top_k"),
            (r#"{"prompt":{"text":"a"},"min_p":1.5}"#, "min_p"),
            (r#"{"prompt":{"text":"a"},"seed":1.5}"#, "seed"),
            (r#"{"prompt":{"text":"a"},"max_tokens":0}"#, "max_tokens"),
            (r#"{"prompt":{"text":"a"},"frequency_penalty":3}"#, "frequency_penalty"),
            (r#"{"prompt":{"text":"a"},"presence_penalty":-3}"#, "presence_penalty"),
            (r#"{"prompt":{"text":"a"},"repetition_penalty":0}"#, "repetition_penalty"),
            (r#"{"prompt":{"text":"a"},"logit_bias":{"x":1}}"#, "logit_bias"),
            (r#"{"prompt":{"text":"a"},"logit_bias":{"1":101}}"#, "logit_bias"),
            (r#"{"prompt":{"text":"a"},"stop":[""]}"#, "stop"),
            (r#"{"prompt":{"text":"a"},"stop":"x"}"#, "stop"),
            (r#"{"prompt":{"text":"a"},"logprobs":21}"#, "logprobs"),
            (r#"{"prompt":{"text":"a"},"ignore_eos":1}"#, "ignore_eos"),
            (r#"{"prompt":{"text":"a"},"window":0}"#, "window"),
            (r#"{"prompt":{"text":"a"},"priority":-100,"deadline_ms":0,"speculate":false}"#, "accepted"),
            (r#"{"prompt":{"text":"a"},"priority":101}"#, "priority"),
            (r#"{"prompt":{"text":"a"},"deadline_ms":-1}"#, "deadline_ms"),
            (r#"{"prompt":{"text":"a"},"speculate":"yes"}"#, "speculate"),
        ];
        for (json, expected) in table {
            assert_eq!(field_of(json), expected, "{json}");
        }
    }

    #[test]
    fn absent_fields_take_defaults() {
        let request = GenerateRequest::from_json(br#"{"prompt":{"text":"a"}}"#).unwrap();
        assert_eq!(request, GenerateRequest::new(Prompt::Text("a".to_owned())));
    }
}
