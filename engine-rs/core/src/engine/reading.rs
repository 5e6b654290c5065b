//! What is done with a request before it waits for its turn: its prompt becomes tokens, its grammar is compiled. On the
//! reader's thread, so that a long prompt or a large schema holds up no stream.

use super::language::Language;
use crate::error::Result;
use crate::grammar::source::Reasoning;
use crate::grammar::{Compiler, Grammar, Stage};
use crate::request::GenerateRequest;
use std::collections::BTreeMap;

/// Tokens at the end of a prompt in which a mark is looked for.
const TAIL: usize = 24;

/// A request's prompt and what else was made of it.
pub struct Prepared {
    pub prompt: Vec<u32>,
    pub grammar: Option<Grammar>,
    pub stage: Stage,
    /// What tokens show that would show nothing otherwise.
    pub shown: BTreeMap<u32, Vec<u8>>,
}

impl Prepared {
    /// Nothing but a prompt.
    pub fn plain(prompt: Vec<u32>) -> Self {
        Self { prompt, grammar: None, stage: Stage::After, shown: BTreeMap::new() }
    }
}

pub struct Reader<'a> {
    language: &'a dyn Language,
    controls: BTreeMap<u32, &'a [u8]>,
    /// Made for the first request that has a grammar.
    compiler: Option<Compiler>,
}

impl<'a> Reader<'a> {
    pub fn new(language: &'a dyn Language) -> Self {
        Self { language, controls: language.controls().into_iter().collect(), compiler: None }
    }

    pub fn prepare(&mut self, request: &GenerateRequest) -> Result<Prepared> {
        let prompt = self.language.read(request)?;
        let stage = request.reasoning.as_ref().map_or(Stage::After, |marks| self.stage(&prompt, marks));
        Ok(Prepared { grammar: self.grammar(request, stage)?, prompt, stage, shown: self.shown(request) })
    }

    fn grammar(&mut self, request: &GenerateRequest, stage: Stage) -> Result<Option<Grammar>> {
        let Some(source) = &request.grammar else {
            return Ok(None);
        };
        let compiler = match self.compiler.take() {
            Some(compiler) => compiler,
            None => Compiler::new(self.language)?,
        };
        let compiler = self.compiler.insert(compiler);
        compiler.compile(source, stage, request.reasoning.as_ref()).map(Some)
    }

    fn shown(&self, request: &GenerateRequest) -> BTreeMap<u32, Vec<u8>> {
        let named = request.shown.iter().filter_map(|token| Some((*token, self.controls.get(token)?.to_vec())));
        named.collect()
    }

    /// Templates that make a model reason write the opening mark at the prompt's end; those that keep it from reasoning
    /// write both.
    fn stage(&self, prompt: &[u32], marks: &Reasoning) -> Stage {
        let tail = &prompt[prompt.len().saturating_sub(TAIL)..];
        let bytes =
            tail.iter().flat_map(|token| self.controls.get(token).copied().unwrap_or(self.language.bytes(*token)));
        let bytes: Vec<u8> = bytes.copied().collect();
        let end = bytes.trim_ascii_end();
        if end.ends_with(marks.open.as_bytes()) {
            Stage::Inside
        } else if end.ends_with(marks.close.as_bytes()) {
            Stage::After
        } else {
            Stage::Before
        }
    }
}
