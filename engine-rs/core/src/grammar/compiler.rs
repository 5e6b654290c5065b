//! Makes grammars for one model. Used by the thread that reads prompts, never by the one that computes: building the
//! trie of a large vocabulary takes a tenth of a second, a large schema as long.

use super::compose::{Stage, compose, mark};
use super::source::{Notation, Reasoning, Source};
use super::state::{Grammar, first_line};
use super::vocabulary;
use crate::engine::language::Language;
use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What compiling one grammar may take. Usual are milliseconds.
const TIME: Duration = Duration::from_secs(5);
/// Compiled grammars that are kept for the next request with the same one, as clients that call tools send them.
const KEPT: usize = 8;

/// A client's grammar may cost no more than this. Each is the library's default or less: fuel bounds the time to
/// compile (20 ms) and to compute one mask (15 ms), states the memory (a kilobyte or two each).
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 25_000,
        max_grammar_size: 300_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

#[derive(PartialEq)]
struct Key {
    notation: Notation,
    stage: Stage,
    marks: Option<(String, String)>,
}

/// Compiles grammars; keeps the newest.
pub struct Compiler {
    factory: Arc<ParserFactory>,
    controls: BTreeMap<Vec<u8>, u32>,
    size: usize,
    sandbox: Sandbox,
    kept: Vec<(Key, Grammar)>,
}

impl Compiler {
    /// Builds the trie of the model's tokens.
    pub fn new(language: &dyn Language) -> Result<Self> {
        let environment = vocabulary::environment(language);
        let mut factory =
            ParserFactory::new_simple(&environment).map_err(|error| Error::Grammar(first_line(&error)))?;
        *factory.limits_mut() = limits();
        factory.quiet();
        Ok(Self {
            factory: Arc::new(factory),
            controls: language.controls().into_iter().map(|(token, name)| (name.to_vec(), token)).collect(),
            size: language.size(),
            sandbox: Sandbox::new("grammar", TIME, Error::Grammar),
            kept: Vec::new(),
        })
    }

    /// The grammar of an answer. Errors: `InvalidRequest` names the field that the client wrote it in.
    pub fn compile(&mut self, source: &Source, stage: Stage, reasoning: Option<&Reasoning>) -> Result<Grammar> {
        let marks = reasoning.map(|marks| (self.mark(&marks.open), self.mark(&marks.close)));
        let key = Key { notation: source.notation.clone(), stage, marks };
        if let Some(found) = self.kept.iter().position(|(kept, _)| *kept == key) {
            let entry = self.kept.remove(found);
            self.kept.push(entry);
        } else {
            let grammar = self.build(&key).map_err(|error| match error {
                Error::Grammar(reason) => source.refuse(&reason),
                other => other,
            })?;
            if self.kept.len() == KEPT {
                self.kept.remove(0);
            }
            self.kept.push((key, grammar));
        }
        let newest = self.kept.last().map(|(_, grammar)| grammar.copy());
        newest.ok_or_else(|| Error::Internal("a compiled grammar is gone".to_owned()))
    }

    fn mark(&self, text: &str) -> String {
        mark(text, self.controls.get(text.as_bytes()).copied())
    }

    fn build(&self, key: &Key) -> Result<Grammar> {
        let (factory, size) = (Arc::clone(&self.factory), self.size);
        let marks = key.marks.as_ref().map(|(open, close)| (open.as_str(), close.as_str()));
        let grammar = compose(&key.notation, key.stage, marks);
        self.sandbox.run(move || parse(&factory, grammar, size))
    }
}

fn parse(factory: &ParserFactory, grammar: TopLevelGrammar, size: usize) -> Result<Grammar> {
    let mut matcher = Matcher::new(factory.create_parser(grammar));
    if let Some(error) = matcher.get_error() {
        return Err(Error::Grammar(first_line(&error)));
    }
    // A grammar that nothing follows shows only now; so does one whose first step takes too much.
    if !matcher.is_stopped() {
        matcher.compute_mask().map_err(|error| Error::Grammar(first_line(&error)))?;
    }
    Ok(Grammar::new(matcher, size))
}
