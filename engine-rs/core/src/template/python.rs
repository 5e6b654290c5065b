//! Where Python differs from minijinja: methods of strings that chat templates call and its Python support lacks, and
//! tests that answer differently.

use minijinja::value::{Tuple, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

pub fn add(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(call_method);
    environment.add_test("iterable", |value: &Value| is_iterable(value));
    environment.add_test("sequence", |value: &Value| is_sequence(value));
}

fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Has a length and items: strings and mappings too.
fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
}

fn call_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.as_str().map(|text| string_method(text, method, args)) {
        Some(Err(error)) if error.kind() == ErrorKind::UnknownMethod => {
            pycompat::unknown_method_callback(state, value, method, args)
        }
        Some(result) => result,
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let separator = separator(args)?;
            Ok(match text.split_once(separator) {
                Some((before, after)) => triple(before, separator, after),
                None => triple(text, "", ""),
            })
        }
        "rpartition" => {
            let separator = separator(args)?;
            Ok(match text.rsplit_once(separator) {
                Some((before, after)) => triple(before, separator, after),
                None => triple("", "", text),
            })
        }
        "rsplit" => rsplit(text, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn separator(args: &[Value]) -> Result<&str, Error> {
    let (separator,): (&str,) = from_args(args)?;
    match separator {
        "" => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        _ => Ok(separator),
    }
}

fn triple(before: &str, separator: &str, after: &str) -> Value {
    Value::from(Tuple::from([before, separator, after].map(Value::from)))
}

/// `rsplit(separator, most)`: like `split`, but what is not split any more is on the left.
fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (by, most): (&str, Option<i64>) = from_args(args)?;
    separator(&args[..1])?;
    let splits = most.and_then(|most| usize::try_from(most).ok());
    let limit = splits.map_or(usize::MAX, |splits| splits.saturating_add(1));
    let mut parts: Vec<&str> = text.rsplitn(limit, by).collect();
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}
