//! Grammars over a vocabulary of bytes: what each notation takes, where reasoning may stand, and that no grammar costs
//! more than it may. Token 0 ends an answer, token 1 is the control token `[CALL]`.

use super::source::{Notation, Reasoning, Schema, Source};
use super::*;
use crate::engine::scripted::Letters;
use crate::error::Error;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn source(notation: Notation) -> Source {
    Source { field: "guided".to_owned(), notation }
}

fn compiler() -> Compiler {
    Compiler::new(&Letters).unwrap()
}

fn json(schema: Value) -> Notation {
    Notation::Json { schema, strict: true }
}

fn regex(text: &str) -> Notation {
    Notation::Regex(text.to_owned())
}

fn lark(text: &str) -> Notation {
    Notation::Lark { text: text.to_owned(), schemas: Vec::new() }
}

/// With two schemas to refer to, each with a definition of the same name.
fn calls(text: &str) -> Notation {
    let schema = |name: &str, property: &str, kind: &str| Schema {
        name: name.to_owned(),
        schema: json!({
            "type": "object", "properties": {property: {"$ref": "#/$defs/kind"}}, "required": [property],
            "$defs": {"kind": {"type": kind}},
        }),
        strict: false,
    };
    let schemas = vec![schema("f", "a", "integer"), schema("g", "b", "string")];
    Notation::Lark { text: text.to_owned(), schemas }
}

fn choice(texts: &[&str]) -> Notation {
    Notation::Choice(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// What becomes of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// It is an answer, and nothing may follow it.
    Complete,
    /// It is an answer, and more may follow.
    Answer,
    /// It is the beginning of an answer.
    Open,
    /// The byte at this place may not stand there.
    Wrong(usize),
}
use Verdict::{Answer, Complete, Open, Wrong};

fn verdict(grammar: &mut Grammar, text: &[u8]) -> Verdict {
    for (place, byte) in text.iter().enumerate() {
        let token = u32::from(*byte);
        let mut logits = vec![1.0; 300];
        if grammar.complete() || !grammar.allows(token).unwrap() {
            return Wrong(place);
        }
        grammar.restrict(&mut logits).unwrap();
        assert_eq!(logits[token as usize], 1.0, "asked alone {token} is allowed, among all it is not");
        assert!(logits[256..].iter().all(|logit| *logit == f32::NEG_INFINITY), "padding");
        grammar.take(token).unwrap();
    }
    match (grammar.complete(), grammar.allows(0).unwrap()) {
        (true, _) => Complete,
        (false, true) => Answer,
        (false, false) => Open,
    }
}

#[test]
fn each_notation_takes_its_texts() {
    let person = json!({
        "type": "object",
        "properties": {"name": {"$ref": "#/$defs/name"}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name"],
        "additionalProperties": false,
        "$defs": {"name": {"type": "string", "minLength": 1}},
    });
    let tree = json!({
        "type": "object", "properties": {"left": {"$ref": "#"}}, "additionalProperties": false,
    });
    let table: Vec<(Notation, &str, Verdict)> = vec![
        (regex("[0-9]{3}"), "123", Complete),
        (regex("^[0-9]{3}$"), "123", Complete),
        (regex(r"a\$"), "a$", Complete),
        (regex("[0-9]{3}"), "12", Open),
        (regex("[0-9]{3}"), "1a", Wrong(1)),
        (regex(r"\d+"), "12", Answer),
        (regex(r"\d+"), "١", Wrong(0)),
        (regex("a/b|é"), "é", Complete),
        (choice(&["yes", "yes please", "no"]), "yes", Answer),
        (choice(&["yes", "yes please", "no"]), "yes please", Complete),
        (choice(&["yes", "no"]), "n", Open),
        (choice(&["yes", "no"]), "nn", Wrong(1)),
        (choice(&["a\"b\\\n"]), "a\"b\\\n", Complete),
        (json(json!({"type": "object"})), r#"{"a": [1, true, null]}"#, Complete),
        (json(json!({"type": "object"})), "[", Wrong(0)),
        (json(json!(true)), "[1]", Complete),
        (json(json!({"type": "integer"})), "12", Answer),
        (json(person.clone()), r#"{"name":"A","age":3}"#, Complete),
        (json(person.clone()), "{\n  \"name\": \"A\"\n}", Complete),
        (json(person.clone()), r#"{"name":""#, Open),
        (json(person.clone()), r#"{"name":"""#, Wrong(9)),
        (json(person.clone()), r#"{"age":3}"#, Wrong(2)),
        (json(person.clone()), r#"{"name":"A","age":151"#, Wrong(20)),
        (json(person), r#"{  "#, Wrong(2)),
        (json(tree), r#"{"left":{"left":{}}}"#, Complete),
        (lark("start: \"a\" b+\nb: \"b\" | \"(\" start \")\""), "ab(ab)", Answer),
        (lark("start: \"a\" <[1]> \"b\""), "a\u{1}b", Complete),
        (lark("start: /(?s:.*)/"), "\u{1}", Wrong(0)),
        (calls("start: \"f \" @f | \"g \" @g"), r#"f {"a":1}"#, Complete),
        (calls("start: \"f \" @f | \"g \" @g"), r#"g {"a":1"#, Wrong(4)),
        (calls("start: (\"f \" @f){1,2}"), r#"f {"a": 1}f {"a": 2}"#, Complete),
    ];
    let mut compiler = compiler();
    for (notation, text, expected) in table {
        let mut grammar = compiler.compile(&source(notation.clone()), Stage::After, None).unwrap();
        assert_eq!(verdict(&mut grammar, text.as_bytes()), expected, "{text} by {notation:?}");
    }
}

#[test]
fn reasoning_comes_before_the_answer() {
    let spelled = Reasoning { open: "<think>".to_owned(), close: "</think>".to_owned() };
    let tokens = Reasoning { open: "[CALL]".to_owned(), close: "[CALL]".to_owned() };
    let table: &[(&Reasoning, Stage, &str, Verdict)] = &[
        (&spelled, Stage::After, "yes", Complete),
        (&spelled, Stage::After, "<", Wrong(0)),
        (&spelled, Stage::Before, "yes", Complete),
        (&spelled, Stage::Before, "<think>no, or {\"</think>\n\nyes", Complete),
        (&spelled, Stage::Before, "<think>no</think>no", Wrong(17)),
        (&spelled, Stage::Before, "hm", Wrong(0)),
        (&spelled, Stage::Inside, "no, yes</think>yes", Complete),
        (&spelled, Stage::Inside, "no, yes</think>\n\n\n\n\n", Wrong(19)),
        (&spelled, Stage::Inside, "yes", Open),
        (&tokens, Stage::Before, "\u{1}no</think>\u{1}yes", Complete),
        (&tokens, Stage::Inside, "no\u{1}\nno", Wrong(4)),
    ];
    let mut compiler = compiler();
    for (marks, stage, text, expected) in table {
        let mut grammar = compiler.compile(&source(choice(&["yes"])), *stage, Some(marks)).unwrap();
        assert_eq!(verdict(&mut grammar, text.as_bytes()), *expected, "{text} {stage:?} {marks:?}");
    }
}

#[test]
fn an_answer_moves_no_other() {
    let mut compiler = compiler();
    let wanted = source(choice(&["yes", "no"]));
    let mut first = compiler.compile(&wanted, Stage::After, None).unwrap();
    assert_eq!(verdict(&mut first, b"y"), Open);
    let mut second = compiler.compile(&wanted, Stage::After, None).unwrap();
    assert_eq!(verdict(&mut second, b"no"), Complete);
    assert_eq!(verdict(&mut first, b"es"), Complete);
}

#[test]
fn unenforceable_schemas_are_refused_if_strict() {
    let schema = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    let mut compiler = compiler();
    let mut compile = |strict| {
        let notation = Notation::Json { schema: schema.clone(), strict };
        compiler.compile(&source(notation), Stage::After, None)
    };
    let Err(Error::InvalidRequest { field, reason }) = compile(true) else { panic!("taken") };
    assert_eq!(field, "guided");
    assert!(reason.contains("uniqueItems"), "{reason}");
    assert_eq!(verdict(&mut compile(false).unwrap(), b"[1, 1]"), Complete);
}

#[test]
fn bad_grammars_say_what_is_wrong() {
    let table = [
        (regex("[0-9"), "regex"),
        (regex("("), "regex"),
        (lark("begin: \"a\""), "start"),
        (lark("start: nothing"), "nothing"),
        (json(json!({"type": "colour"})), "colour"),
        (json(json!({"$ref": "#/$defs/none"})), "none"),
        (json(json!({"$ref": "https://example.com/schema"})), "example.com"),
        (json(json!({"type": "string", "pattern": "["})), "regex"),
        (json(json!({"type": "integer", "minimum": 5, "maximum": 4})), "minimum"),
    ];
    let mut compiler = compiler();
    for (notation, part) in table {
        let error = compiler.compile(&source(notation.clone()), Stage::After, None).err();
        let Some(Error::InvalidRequest { field, reason }) = error else { panic!("{notation:?}: {error:?}") };
        assert_eq!(field, "guided");
        assert!(reason.contains(part) && !reason.contains('\n'), "{notation:?}: {reason}");
    }
}

/// Grammars that would take minutes or gigabytes if they were let.
fn hostile() -> Vec<Notation> {
    let nested = |levels: usize| (0..levels).fold(json!({}), |inner, _| json!({"type": "array", "items": inner}));
    let doubled = |keyword: &str| {
        let part = |level: usize| match level {
            0 => json!({"type": "object", "properties": {"a": {"type": "string"}}}),
            _ => {
                json!({keyword: [{"$ref": format!("#/$defs/d{}", level - 1)}, {"$ref": format!("#/$defs/d{}", level - 1)}]})
            }
        };
        let parts: serde_json::Map<String, Value> = (0..40).map(|level| (format!("d{level}"), part(level))).collect();
        json!({"$defs": parts, "$ref": "#/$defs/d39"})
    };
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|number| (format!("property number {number}"), json!({"type": "integer"}))).collect();
    vec![
        regex("(a{1000}){1000}"),
        regex("(((a{100}){100}){100}){100}"),
        regex("(a|b)*a(a|b){200}"),
        regex("(.*x){200}"),
        regex(&"(".repeat(50_000)),
        regex(&format!("{}a{}", "(".repeat(5000), ")*".repeat(5000))),
        json(nested(100)),
        json(json!({"type": "array", "minItems": 1_000_000_000})),
        json(json!({"type": "array", "maxItems": 1_000_000_000, "items": {"type": "array", "maxItems": 1_000_000}})),
        json(json!({"type": "string", "maxLength": 1_000_000_000})),
        json(json!({"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "minLength": 100_000})),
        json(json!({"type": "number", "multipleOf": 1e-300})),
        json(json!({"type": "integer", "minimum": -1e308, "maximum": 1e308, "multipleOf": 999_999_937})),
        json(json!({"$ref": "#"})),
        json(json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        json(doubled("allOf")),
        json(doubled("anyOf")),
        json(doubled("oneOf")),
        json(json!({"type": "object", "properties": many})),
        lark("start: start start | \"a\""),
        lark("start: start"),
        lark("start: (\"\"?)*"),
        lark("start: a{100000}\na: b{100000}\nb: \"x\" | \"y\""),
        lark("start: A\nA: B{1000}\nB: C{1000}\nC: /[a-z]+/"),
        lark("start: (A | B)*\nA: /a*b*/\nB: /(ab)*/"),
        lark("start: a* a* a* a* a* a* a* a*\na: \"x\"*"),
    ]
}

#[test]
fn hostile_grammars_cost_little() {
    let mut compiler = compiler();
    for notation in hostile() {
        let shown: String = format!("{notation:?}").chars().take(100).collect();
        let begin = Instant::now();
        let compiled = compiler.compile(&source(notation), Stage::After, None);
        let compiling = begin.elapsed();
        println!("{compiling:>10.1?} {shown} {:?}", compiled.as_ref().err().map(ToString::to_string));
        assert!(compiling < Duration::from_secs(3), "{shown}: {compiling:?} to compile");
        let Ok(mut grammar) = compiled else { continue };
        let begin = Instant::now();
        let steps = walk(&mut grammar, 200);
        let each = begin.elapsed() / (steps.max(1) as u32);
        println!("           {steps} steps of {each:?}");
        assert!(each < Duration::from_millis(100), "{shown}: {each:?} for a step");
    }
}

/// Follows a grammar for at most `limit` tokens, always with the highest byte that is allowed; how many there were.
fn walk(grammar: &mut Grammar, limit: usize) -> usize {
    for step in 0..limit {
        let mut logits = vec![1.0; 256];
        if grammar.complete() || grammar.restrict(&mut logits).is_err() {
            return step;
        }
        let Some(token) = logits.iter().rposition(|logit| *logit > 0.0) else { return step };
        if token == 0 || grammar.take(token as u32).is_err() {
            return step;
        }
    }
    limit
}
