//! The `tojson` filter of chat templates: what Python's `json.dumps(value, ensure_ascii=False)` prints. Models are
//! trained on tool definitions in exactly this form - blanks after `:` and `,`, keys in the order given, nothing escaped
//! for HTML - so Jinja's own filter will not do.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Nesting that JSON parsers accept; also keeps the recursion bounded.
const MAX_DEPTH: usize = 128;

/// The filter, with the keyword arguments of Hugging Face's: `ensure_ascii`, `indent`, `separators`, `sort_keys`.
pub fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        Some(indent) => Some(indentation(&indent)?),
        None => None,
    };
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => Some(pair_of_strings(&pair)?),
        _ => None,
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or_else(|| (comma.to_owned(), ": ".to_owned()));
    let mut writer = Writer {
        out: String::new(),
        indent,
        item,
        key,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        depth: 0,
    };
    options.assert_all_used()?;
    writer.value(value)?;
    Ok(writer.out)
}

fn indentation(indent: &Value) -> Result<String, Error> {
    match (indent.as_str(), indent.as_i64()) {
        (Some(text), _) => Ok(text.to_owned()),
        (_, Some(width)) => Ok(" ".repeat(width.clamp(0, 64) as usize)),
        _ => Err(Error::new(ErrorKind::InvalidOperation, "`indent` is a number or a string")),
    }
}

fn pair_of_strings(pair: &Value) -> Result<(String, String), Error> {
    let strings: Vec<String> = pair.try_iter()?.map(|part| part.to_string()).collect();
    match <[String; 2]>::try_from(strings) {
        Ok([item, key]) => Ok((item, key)),
        Err(_) => Err(Error::new(ErrorKind::InvalidOperation, "`separators` are two strings")),
    }
}

struct Writer {
    out: String,
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
    depth: usize,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)?),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value)?,
            ValueKind::Map => self.map(value)?,
            kind => return Err(unserializable(kind)),
        }
        Ok(())
    }

    fn list(&mut self, value: &Value) -> Result<(), Error> {
        self.open('[')?;
        let mut empty = true;
        for element in value.try_iter()? {
            self.next(&mut empty);
            self.value(&element)?;
        }
        self.close(']', empty);
        Ok(())
    }

    fn map(&mut self, value: &Value) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort {
            keys.sort();
        }
        self.open('{')?;
        let mut empty = true;
        for key in keys {
            self.next(&mut empty);
            self.name(&key)?;
            self.out.push_str(&self.key);
            self.value(&value.get_item(&key)?)?;
        }
        self.close('}', empty);
        Ok(())
    }

    fn name(&mut self, key: &Value) -> Result<(), Error> {
        let text = match key.kind() {
            ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
            ValueKind::Number => number(key)?,
            ValueKind::Bool => key.is_true().to_string(),
            ValueKind::None => "null".to_owned(),
            kind => return Err(unserializable(kind)),
        };
        self.string(&text);
        Ok(())
    }

    fn open(&mut self, bracket: char) -> Result<(), Error> {
        self.depth += 1;
        self.out.push(bracket);
        if self.depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "a value is nested too deeply"));
        }
        Ok(())
    }

    fn next(&mut self, empty: &mut bool) {
        if !*empty {
            self.out.push_str(&self.item);
        }
        *empty = false;
        self.line();
    }

    fn close(&mut self, bracket: char, empty: bool) {
        self.depth -= 1;
        if !empty {
            self.line();
        }
        self.out.push(bracket);
    }

    fn line(&mut self) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            (0..self.depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if character < ' ' || (self.ascii && character > '~') => self.escape(character),
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(self.out, "\\u{unit:04x}");
        }
    }
}

fn unserializable(kind: ValueKind) -> Error {
    Error::new(ErrorKind::BadSerialization, format!("a value of type {kind} is no JSON"))
}

/// A number as Python writes it: integers exactly, floats by the shortest digits that read back, with an exponent
/// outside 1e-4..1e16.
fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    let float = f64::try_from(value.clone())?;
    if !float.is_finite() {
        return Ok(if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .to_owned());
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return Ok(format!("{digits}e{sign}{:02}", exponent.abs()));
    }
    let plain = float.to_string();
    Ok(if plain.contains('.') { plain } else { plain + ".0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pythons() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.25e100, "-1.25e+100"),
            (123_456.789, "123456.789"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (float, expected) in cases {
            assert_eq!(number(&Value::from(float)).unwrap(), expected);
        }
        assert_eq!(number(&Value::from(u64::MAX)).unwrap(), "18446744073709551615");
    }
}
