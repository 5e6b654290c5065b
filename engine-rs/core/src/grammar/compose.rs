//! From a request's source to the grammars that llguidance compiles: the answer's own, and where a model reasons first,
//! one around it that lets the reasoning pass.

use super::source::Notation;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::regex_to_lark;
use serde_json::{Value, json};

/// Blanks between the parts of a JSON text: one, or a line with its indentation. Any number of them would let a model
/// write blanks for ever.
const BLANKS: &str = r"[ ]|\r?\n[ \t]{0,64}";

/// Where the model's reasoning is when the answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It may begin now.
    Before,
    /// The prompt has begun it.
    Inside,
    /// It is over, or there is none.
    After,
}

/// A mark in Lark's notation: a control token by its number, any other by its text.
pub fn mark(text: &str, control: Option<u32>) -> String {
    control.map_or_else(|| json!(text).to_string(), |token| format!("<[{token}]>"))
}

/// The grammars of an answer, the main one first. `marks` are those around the reasoning, in Lark's notation.
pub fn compose(notation: &Notation, stage: Stage, marks: Option<(&str, &str)>) -> TopLevelGrammar {
    let mut grammars = vec![write(notation)];
    if let Notation::Lark { schemas, .. } = notation {
        grammars.extend(schemas.iter().map(|named| GrammarWithLexer {
            name: Some(named.name.clone()),
            ..GrammarWithLexer::from_json_schema(with_options(&named.schema, named.strict))
        }));
    }
    if let (Some((open, close)), Stage::Before | Stage::Inside) = (marks, stage) {
        grammars[0].name = Some("answer".to_owned());
        let around = GrammarWithLexer { lark_grammar: Some(around(stage, open, close)), ..Default::default() };
        grammars.insert(0, around);
    }
    TopLevelGrammar { grammars, max_tokens: None }
}

fn around(stage: Stage, open: &str, close: &str) -> String {
    let start = match stage {
        Stage::Before => format!("@answer | {open} rest"),
        _ => "rest".to_owned(),
    };
    // A control token ends the text by itself; a mark that is text ends it where it first stands.
    let thought = match close.starts_with('"') {
        true => format!("thought[lazy]: TEXT {close}"),
        false => format!("thought: TEXT {close}"),
    };
    format!("start: {start}\nrest: thought BLANKS? @answer\n{thought}\nTEXT: /(?s:.*)/\nBLANKS: /[\\n ]{{1,4}}/\n")
}

fn write(notation: &Notation) -> GrammarWithLexer {
    match notation {
        Notation::Json { schema, strict } => GrammarWithLexer::from_json_schema(with_options(schema, *strict)),
        Notation::Regex(regex) => {
            GrammarWithLexer::from_lark(format!("start: /{}/", regex_to_lark(bare(regex), "dws")))
        }
        Notation::Choice(choices) => {
            let quoted: Vec<String> = choices.iter().map(|choice| json!(choice).to_string()).collect();
            // One terminal: of choices that begin alike, the longer one stays possible.
            GrammarWithLexer::from_lark(format!("start: CHOICE\nCHOICE: {}", quoted.join(" | ")))
        }
        Notation::Lark { text, .. } => GrammarWithLexer::from_lark(text.clone()),
    }
}

/// The schema with our options of llguidance in place of any that came with it.
fn with_options(schema: &Value, strict: bool) -> Value {
    let mut fields = match schema {
        Value::Object(fields) => fields.clone(),
        _ => serde_json::Map::new(),
    };
    fields.insert("x-guidance".to_owned(), json!({"whitespace_pattern": BLANKS, "lenient": !strict}));
    Value::Object(fields)
}

/// Without anchors: the whole answer has to match anyway.
fn bare(regex: &str) -> &str {
    let start = regex.strip_prefix('^').unwrap_or(regex);
    let escapes = start.strip_suffix('$').map(|rest| rest.len() - rest.trim_end_matches('\\').len());
    match escapes {
        Some(count) if count % 2 == 0 => &start[..start.len() - 1],
        _ => start,
    }
}
