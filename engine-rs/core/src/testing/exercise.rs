//! Everything that a server does with a model file, once: what tests of damaged files run.

use std::path::Path;
use std::sync::Arc;

use crate::encoder::{Encoder, EncoderSpec};
use crate::error::Result;
use crate::executor::{Chunk, ExecutorOptions, Want, load};
use crate::gguf::Gguf;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

/// Reads all values, tokenizes, renders a chat, loads the model and computes two tokens. What the model could be for a part
/// is tried even where another part is refused.
///
/// # Errors
/// Whatever the file or its model is refused for.
pub fn exercise(path: &Path) -> Result<()> {
    let file = Arc::new(Gguf::open(path)?);
    let keys: Vec<String> = file.values().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        let _ = (file.strings(&key), file.i32s(&key), file.f32s(&key), file.u32(&key), file.str(&key));
    }
    let language = speak(&file);
    let computed = compute(file);
    language.and(computed)
}

fn speak(file: &Gguf) -> Result<()> {
    let tokenizer = Tokenizer::from_gguf(file)?;
    let tokens = tokenizer.encode("the thin <|s|> caf\u{e9}\n", true, true);
    tokenizer.decode(&tokens);
    tokenizer.decode(&[0, u32::MAX, tokenizer.size() as u32]);
    let messages = serde_json::json!([{"role": "user", "content": "hello"}]);
    if let Some(template) = ChatTemplate::from_gguf(file, &tokenizer)? {
        template.render(&messages, &serde_json::Map::new(), true)?;
    }
    Ok(())
}

fn compute(file: Arc<Gguf>) -> Result<()> {
    let tokens = [0, 1];
    if EncoderSpec::describes(&file) {
        return Encoder::open(&file)?.embed(&[&tokens, &tokens[..1]]).map(drop);
    }
    let options = ExecutorOptions { threads: 1, ..ExecutorOptions::default() };
    let mut executor = load(file, &options)?;
    executor.step(&[Chunk { start: 0, tokens: &tokens, want: Want::Last, blocks: &[0] }]).map(drop)
}
