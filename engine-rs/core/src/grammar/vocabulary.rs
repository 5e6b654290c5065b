//! The tokens of a model as llguidance wants them: a trie over the bytes that each adds to the text. Control tokens add
//! none; they stand apart under their names, so that no text can be mistaken for one.

use crate::engine::language::Language;
use std::collections::BTreeMap;
use std::sync::Arc;
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

/// The trie's own mark of a token that is no text.
const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// The trie of a model's tokens.
pub fn environment(language: &dyn Language) -> TokEnv {
    let controls: BTreeMap<u32, &[u8]> = language.controls().into_iter().collect();
    let size = language.size() as u32;
    let words: Vec<Vec<u8>> = (0..size).map(|token| word(token, language, &controls)).collect();
    let ends: Vec<u32> = (0..size).filter(|token| language.ends(*token)).collect();
    let info = TokRxInfo::new(size, ends.first().copied().unwrap_or(INVALID_TOKEN));
    let mut trie = TokTrie::from(&info, &words);
    if ends.len() > 1 {
        trie = trie.with_eos_tokens(&ends);
    }
    Arc::new(ApproximateTokEnv::new(trie))
}

fn word(token: u32, language: &dyn Language, controls: &BTreeMap<u32, &[u8]>) -> Vec<u8> {
    let bytes = language.bytes(token);
    let name = controls.get(&token).copied();
    match name {
        Some(name) => [&[MARKER], name].concat(),
        // An end that is text all the same, a token that adds nothing, the byte that is the mark: none may stand for text.
        None if language.ends(token) || bytes.first().is_none_or(|byte| *byte == MARKER) => {
            [&[MARKER], format!("[{token}]").as_bytes()].concat()
        }
        None => bytes.to_vec(),
    }
}
