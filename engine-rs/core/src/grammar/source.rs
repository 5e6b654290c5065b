//! What a request says of its answer's form, read from JSON and checked, before it is compiled.

use crate::error::{Error, Result};
use serde_json::{Map, Value};

/// The largest grammar in bytes: a few thousand properties. Compilers of schemas take time that grows with it.
pub const MAX_BYTES: usize = 128 << 10;
/// Properties of one object: the time to compile it grows with their square, to half a second here.
const MAX_MEMBERS: usize = 1000;
const MAX_CHOICES: usize = 10_000;
const MAX_FIELD: usize = 64;

/// A grammar in one of the notations.
#[derive(Debug, Clone, PartialEq)]
pub enum Notation {
    /// A JSON schema. `strict`: what cannot be enforced is refused, not left out.
    Json { schema: Value, strict: bool },
    /// A regular expression that the whole answer matches.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Lark's notation, with llguidance's extensions. `@name` stands for a schema in `schemas`.
    Lark { text: String, schemas: Vec<Schema> },
}

/// A JSON schema that a grammar in Lark's notation refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    pub name: String,
    pub schema: Value,
    pub strict: bool,
}

/// A grammar, and the field that a client wrote it in, for complaints.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub field: String,
    pub notation: Notation,
}

/// What surrounds a model's reasoning, such as `<think>` and `</think>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasoning {
    pub open: String,
    pub close: String,
}

impl Source {
    /// Reads `{"json": .., "strict": ..}`, `{"regex": ..}`, `{"choice": [..]}` or `{"lark": ..}`, each with an optional
    /// `field`; `lark` also with `"schemas": {name: {"json": .., "strict": ..}}`.
    pub fn from_json(value: Value) -> Result<Self> {
        let Value::Object(mut fields) = value else {
            return Err(wrong("must be an object"));
        };
        let field = match fields.shift_remove("field") {
            None => "grammar".to_owned(),
            Some(Value::String(field)) if field.len() <= MAX_FIELD => field,
            Some(_) => return Err(wrong("`field` must be a short name")),
        };
        let source = Self { notation: read_notation(&mut fields)?, field };
        match fields.keys().next() {
            Some(unknown) => Err(wrong(&format!("there is no `{unknown}` in a grammar of this kind"))),
            None => Ok(source),
        }
    }

    /// Checks the limits that need no model.
    pub fn check(&self) -> Result<()> {
        let bytes = match &self.notation {
            Notation::Json { schema, .. } => self.size(schema)?,
            Notation::Regex(text) => text.len(),
            Notation::Lark { text, schemas } => {
                let sizes = schemas.iter().map(|named| self.size(&named.schema));
                text.len() + sizes.sum::<Result<usize>>()?
            }
            Notation::Choice(choices) if choices.is_empty() || choices.len() > MAX_CHOICES => {
                return Err(self.refuse(&format!("there must be 1 to {MAX_CHOICES} choices")));
            }
            Notation::Choice(choices) if choices.iter().any(String::is_empty) => {
                return Err(self.refuse("a choice must not be empty"));
            }
            Notation::Choice(choices) => choices.iter().map(String::len).sum(),
        };
        if bytes > MAX_BYTES {
            return Err(self.refuse(&format!("{bytes} bytes are too many (limit: {MAX_BYTES})")));
        }
        Ok(())
    }

    /// The bytes of a schema.
    fn size(&self, schema: &Value) -> Result<usize> {
        if !schema.is_object() && *schema != Value::Bool(true) {
            return Err(self.refuse("a JSON schema is an object"));
        }
        let members = most_members(schema);
        if members > MAX_MEMBERS {
            return Err(self.refuse(&format!("{members} properties of one object are too many (limit: {MAX_MEMBERS})")));
        }
        Ok(schema.to_string().len())
    }

    /// A complaint that names the client's field.
    pub fn refuse(&self, reason: &str) -> Error {
        Error::invalid(&self.field, reason)
    }
}

/// The most members that an object within `value` has.
fn most_members(value: &Value) -> usize {
    let inner = match value {
        Value::Object(members) => members.values().map(most_members).max().max(Some(members.len())),
        Value::Array(items) => items.iter().map(most_members).max(),
        _ => None,
    };
    inner.unwrap_or(0)
}

fn read_notation(fields: &mut Map<String, Value>) -> Result<Notation> {
    const KINDS: [&str; 4] = ["json", "regex", "choice", "lark"];
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| fields.contains_key(*kind)).collect();
    let [kind] = kinds[..] else {
        return Err(wrong("must have exactly one of `json`, `regex`, `choice`, `lark`"));
    };
    let value = fields.shift_remove(kind).unwrap_or_default();
    match (kind, value) {
        ("json", schema) => Ok(Notation::Json { schema, strict: read_strict(fields)? }),
        ("regex", Value::String(text)) => Ok(Notation::Regex(text)),
        ("lark", Value::String(text)) => Ok(Notation::Lark { text, schemas: read_schemas(fields)? }),
        ("choice", Value::Array(choices)) => {
            let texts = choices.into_iter().map(|choice| match choice {
                Value::String(text) => Ok(text),
                _ => Err(wrong("`choice` must be a list of texts")),
            });
            Ok(Notation::Choice(texts.collect::<Result<_>>()?))
        }
        (kind, _) => Err(wrong(&format!("`{kind}` has the wrong type"))),
    }
}

fn read_strict(fields: &mut Map<String, Value>) -> Result<bool> {
    let strict = fields.shift_remove("strict").unwrap_or(Value::Bool(false));
    strict.as_bool().ok_or_else(|| wrong("`strict` must be true or false"))
}

fn read_schemas(fields: &mut Map<String, Value>) -> Result<Vec<Schema>> {
    let named = match fields.shift_remove("schemas") {
        None => return Ok(Vec::new()),
        Some(Value::Object(named)) => named,
        Some(_) => return Err(wrong("`schemas` must be an object")),
    };
    let read = |(name, value)| {
        let Value::Object(mut fields) = value else { return Err(wrong("a schema must be an object")) };
        let strict = read_strict(&mut fields)?;
        let schema = fields.shift_remove("json").ok_or_else(|| wrong("a schema must have `json`"))?;
        Ok(Schema { name, schema, strict })
    };
    named.into_iter().map(read).collect()
}

fn wrong(reason: &str) -> Error {
    Error::invalid("grammar", reason)
}
