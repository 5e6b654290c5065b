//! The chat template of a model: messages in, the prompt that the model was trained on out. A template is a program
//! that comes with the model file, in Jinja; it runs here as it would in Hugging Face's libraries, without access to
//! anything but its inputs, and with bounds on its time and output.

mod clock;
mod python;
mod source;
mod tojson;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::sandbox::Sandbox;
use crate::tokenizer::Tokenizer;

/// Instructions that one rendering may take. A thousand messages need some 80,000.
const FUEL: u64 = 1_000_000;
/// Bytes of source: published templates have up to 30,000, and the interpreter recurses into what it reads.
const MAX_SOURCE: usize = 256 << 10;
/// What one rendering may take. Usual is a millisecond.
const TIME: Duration = Duration::from_secs(10);
/// Bytes that one rendering may produce; more than any context holds.
const MAX_OUTPUT: usize = 64 << 20;

const MAIN: &str = "chat_template";
const TOOL_USE: &str = "tool_use";

/// A compiled chat template.
pub struct ChatTemplate {
    program: Arc<Program>,
    sandbox: Sandbox,
    bos: String,
    eos: String,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.program.sources.get(MAIN).map_or(0, String::len);
        write!(formatter, "<ChatTemplate of {bytes} bytes>")
    }
}

impl ChatTemplate {
    /// The template of a model file; `None` when it has none. A second template for requests with tools is taken too.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(main) = gguf.opt_str("tokenizer.chat_template")? else {
            return Ok(None);
        };
        let tool_use = gguf.opt_str("tokenizer.chat_template.tool_use")?;
        let tokens = gguf.strings("tokenizer.ggml.tokens")?;
        let text = |id: Option<u32>| {
            let text = id.and_then(|id| tokens.get(id as usize)).copied();
            String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
        };
        let sources = [(MAIN, Some(main)), (TOOL_USE, tool_use)];
        let sources = sources.into_iter().filter_map(|(name, source)| Some((name, source?)));
        let (bos, eos) = (text(tokenizer.bos()), text(tokenizer.eos()));
        Self::compile(sources, bos, eos, SystemTime::now).map(Some)
    }

    /// Compiles `source`. `bos` and `eos` are the texts of those tokens, empty when the model has none. Errors name the
    /// line.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        Self::compile([(MAIN, source)], bos.to_owned(), eos.to_owned(), SystemTime::now)
    }

    fn compile<'s>(
        sources: impl IntoIterator<Item = (&'static str, &'s str)>,
        bos: String,
        eos: String,
        now: fn() -> SystemTime,
    ) -> Result<Self> {
        let sources = sources.into_iter().map(|(name, source)| (name, source.to_owned())).collect();
        let sandbox = Sandbox::new("template", TIME, Error::Template);
        let program = Arc::new(sandbox.run(move || Program::new(sources, now))?);
        Ok(ChatTemplate { program, sandbox, bos, eos })
    }

    /// The prompt for `messages`. `extra` adds variables - `tools`, `documents`, `enable_thinking` - and may replace
    /// any of the standard ones. Errors: `Template` with the line and reason, or with what the template itself raised.
    pub fn render(
        &self,
        messages: &serde_json::Value,
        extra: &serde_json::Map<String, serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let context = self.context(messages, extra, add_generation_prompt);
        let tools = extra.get("tools").is_some_and(|tools| !tools.is_null());
        let program = Arc::clone(&self.program);
        self.sandbox.run(move || program.render(context, tools))
    }

    /// The template's text, the one for requests with tools where there are two.
    pub fn source(&self) -> &str {
        let sources = &self.program.sources;
        sources.get(TOOL_USE).or_else(|| sources.get(MAIN)).map_or("", String::as_str)
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
        let standard = standard.into_iter().filter(|(name, _)| !extra.contains_key(*name));
        let extra = extra.iter().map(|(name, extra)| (name.as_str(), value(extra)));
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
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(key, field)| (key.as_str(), value(field)))),
    }
}

/// Compiled sources and the interpreter with its additions.
struct Program {
    environment: Environment<'static>,
    /// The text of each template, for errors.
    sources: BTreeMap<&'static str, String>,
}

impl Program {
    fn new(sources: BTreeMap<&'static str, String>, now: fn() -> SystemTime) -> Result<Self> {
        let mut program = Program { environment: environment(now)?, sources: BTreeMap::new() };
        for (name, source) in sources {
            program.add(name, &source)?;
        }
        Ok(program)
    }

    fn add(&mut self, name: &'static str, source: &str) -> Result<()> {
        let length = source.len();
        if length > MAX_SOURCE {
            return Err(Error::Template(format!("{length} bytes are too many (limit: {MAX_SOURCE})")));
        }
        let source = source::without_generation_tags(source);
        let added = self.environment.add_template_owned(name, source.clone());
        added.map_err(|error| describe(&error, &source))?;
        self.sources.insert(name, source);
        Ok(())
    }

    fn render(&self, context: Value, tools: bool) -> Result<String> {
        let name = if tools && self.sources.contains_key(TOOL_USE) { TOOL_USE } else { MAIN };
        let error = |error: minijinja::Error| describe(&error, &self.sources[name]);
        let template = self.environment.get_template(name).map_err(error)?;
        let mut output = Bounded(Vec::new());
        template.render_captured_to(context, &mut output).map_err(error)?;
        String::from_utf8(output.0).map_err(|error| Error::Template(error.to_string()))
    }
}

/// Jinja with the settings and additions of Hugging Face's `apply_chat_template`.
fn environment(now: fn() -> SystemTime) -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| describe(&error, ""))?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    python::add(&mut environment);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    // Recurses without bound, and prints for people.
    environment.remove_filter("pprint");
    environment.add_filter("tojson", tojson::tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| clock::format(now(), format));
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
        let read = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
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
