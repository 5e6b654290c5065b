//! The chat template of a model: messages in, the prompt that the model was trained on out. A template is a program
//! that comes with the model file, in Jinja; it runs here as it would in Hugging Face's libraries, without access to
//! anything but its inputs, and with bounds on its time and output.

mod clock;
mod python;
mod source;
mod tojson;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;

/// Instructions that one rendering may take: a long conversation needs tens of thousands, and this many end within
/// seconds.
const FUEL: u64 = 20_000_000;
/// Bytes that one rendering may produce; more than any context holds.
const MAX_OUTPUT: usize = 64 << 20;

const MAIN: &str = "chat_template";
const TOOL_USE: &str = "tool_use";

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The text of each template, for errors.
    sources: BTreeMap<&'static str, String>,
    bos: String,
    eos: String,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.sources.get(MAIN).map_or(0, String::len);
        write!(formatter, "<ChatTemplate of {bytes} bytes>")
    }
}

impl ChatTemplate {
    /// The template of a model file; `None` when it has none. A second template for requests with tools is taken too.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(source) = gguf.opt_str("tokenizer.chat_template")? else {
            return Ok(None);
        };
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        let text = |id: Option<u32>| {
            let text = id
                .and_then(|id| tokens.get(id as usize))
                .copied()
                .unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        };
        let mut template = Self::new(source, &text(tokenizer.bos()), &text(tokenizer.eos()))?;
        if let Some(tool_use) = gguf.opt_str("tokenizer.chat_template.tool_use")? {
            template.add(TOOL_USE, tool_use)?;
        }
        Ok(Some(template))
    }

    /// Compiles `source`. `bos` and `eos` are the texts of those tokens, empty when the model has none. Errors name the
    /// line.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        Self::with_clock(source, bos, eos, SystemTime::now)
    }

    fn with_clock(source: &str, bos: &str, eos: &str, now: fn() -> SystemTime) -> Result<Self> {
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        let mut template = ChatTemplate {
            environment: environment(now)?,
            sources: BTreeMap::new(),
            bos,
            eos,
        };
        template.add(MAIN, source)?;
        Ok(template)
    }

    fn add(&mut self, name: &'static str, text: &str) -> Result<()> {
        let text = source::without_generation_tags(text);
        let added = self.environment.add_template_owned(name, text.clone());
        added.map_err(|error| describe(&error, &text))?;
        self.sources.insert(name, text);
        Ok(())
    }

    /// The prompt for `messages`. `extra` adds variables - `tools`, `documents`, `enable_thinking` - and may replace
    /// any of the standard ones. Errors: `Template` with the line and reason, or with what the template itself raised.
    pub fn render(
        &self,
        messages: &serde_json::Value,
        extra: &serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let tools = extra.get("tools").is_some_and(|tools| !tools.is_null());
        let name = if tools && self.sources.contains_key(TOOL_USE) {
            TOOL_USE
        } else {
            MAIN
        };
        let context = self.context(messages, extra, add_generation_prompt);
        // minijinja 3.0 panics where Python has a result, as on `messages[::-1]` of no messages, and a
        // panic here would end every other conversation of the engine.
        let rendered = catch_unwind(AssertUnwindSafe(|| self.run(name, context)));
        rendered.unwrap_or_else(|_| {
            Err(Error::Template(
                "the interpreter of templates failed".to_owned(),
            ))
        })
    }

    fn run(&self, name: &str, context: Value) -> Result<String> {
        let error = |error: minijinja::Error| describe(&error, &self.sources[name]);
        let template = self.environment.get_template(name).map_err(error)?;
        let mut output = Bounded(Vec::new());
        template
            .render_captured_to(context, &mut output)
            .map_err(error)?;
        String::from_utf8(output.0).map_err(|error| Error::Template(error.to_string()))
    }

    fn context(
        &self,
        messages: &serde_json::Value,
        extra: &serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Value {
        let standard = [
            ("messages", value(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ];
        let standard = standard
            .into_iter()
            .filter(|(name, _)| !extra.contains_key(*name));
        let extra = extra
            .iter()
            .map(|(name, extra)| (name.as_str(), value(extra)));
        Value::from_pairs(standard.chain(extra))
    }
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (_, Some(integer)) => Value::from(integer),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(values) => values.iter().map(value).collect(),
        Json::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .map(|(key, field)| (key.as_str(), value(field))),
        ),
    }
}

/// Jinja with the settings and additions of Hugging Face's `apply_chat_template`.
fn environment(now: fn() -> SystemTime) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.map_err(|error| describe(&error, ""))?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    python::add(&mut environment);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.add_filter("tojson", tojson::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| {
        clock::format(now(), format)
    });
    Ok(environment)
}

/// Marks an error that the template raised on purpose, to tell it from a failure of the template.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
struct Raised;

fn raise_exception(message: &str) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message.to_owned()).with_source(Raised))
}

/// What failed, in which line, and how that line reads.
fn describe(error: &minijinja::Error, source: &str) -> Error {
    let raised = std::error::Error::source(error).is_some_and(|cause| cause.is::<Raised>());
    if raised {
        return Error::Template(error.detail().unwrap_or_default().to_owned());
    }
    let mut text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line() {
        let read = source
            .lines()
            .nth(line.saturating_sub(1))
            .unwrap_or_default();
        let shown: String = read.trim().chars().take(120).collect();
        text += &format!(" (line {line}: `{shown}`)");
    }
    Error::Template(text)
}

/// Collects output up to a bound.
struct Bounded(Vec<u8>);

impl std::io::Write for &mut Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(std::io::Error::other("the template produces too much text"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
