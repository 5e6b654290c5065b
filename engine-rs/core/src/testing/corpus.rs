//! Small whole model files to damage: every architecture and feature, with tokenizers and a chat template.

use super::{Tiny, Writer, encoders};

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}{{ bos_token }}";

/// Files that load and run.
pub fn corpus() -> Vec<Vec<u8>> {
    let shapes = Tiny::variety().into_iter().chain(Tiny::features()).enumerate();
    let decoders = shapes.map(|(number, tiny)| {
        let mut writer = tiny.writer();
        if number % 2 == 0 {
            byte_level(&mut writer, tiny.vocab);
        } else {
            sentencepiece(&mut writer, tiny.vocab);
        }
        writer.str("tokenizer.chat_template", TEMPLATE);
        writer
    });
    let named = |mut writer: Writer| writer.str("general.name", "tiny").u32("general.file_type", 1).finish();
    decoders.chain(encoders()).map(named).collect()
}

fn byte_level(writer: &mut Writer, vocab: usize) {
    let letters: Vec<String> = ('!'..='~').map(String::from).collect();
    let pairs = ["th", "he", "in"];
    let mut tokens = letters;
    tokens.extend(pairs.map(String::from));
    tokens.extend((tokens.len()..vocab).map(|number| format!("<|{number}|>")));
    tokens.truncate(vocab);
    let kinds: Vec<i32> = tokens.iter().map(|token| if token.starts_with("<|") { 3 } else { 1 }).collect();
    writer.str("tokenizer.ggml.model", "gpt2").str("tokenizer.ggml.pre", "gpt-2");
    writer.strings("tokenizer.ggml.tokens", &tokens).i32s("tokenizer.ggml.token_type", &kinds);
    writer.strings("tokenizer.ggml.merges", &["t h", "h e", "i n"]);
    writer.u32("tokenizer.ggml.bos_token_id", vocab as u32 - 2).u32("tokenizer.ggml.eos_token_id", vocab as u32 - 1);
    writer.bool("tokenizer.ggml.add_bos_token", true);
}

fn sentencepiece(writer: &mut Writer, vocab: usize) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>", "\u{2581}", "\u{2581}th", "he"].map(String::from).to_vec();
    tokens.extend(('a'..='z').map(String::from));
    tokens.extend((tokens.len()..vocab).map(|number| format!("<0x{:02X}>", number % 256)));
    tokens.truncate(vocab);
    let kinds: Vec<i32> =
        (0..vocab).map(|at| [2, 3, 3].get(at).copied().unwrap_or(if at < 32 { 1 } else { 6 })).collect();
    let scores: Vec<f32> = (0..vocab).map(|at| -(at as f32)).collect();
    writer.str("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", &tokens);
    writer.i32s("tokenizer.ggml.token_type", &kinds).f32s("tokenizer.ggml.scores", &scores);
    writer.u32("tokenizer.ggml.bos_token_id", 1).u32("tokenizer.ggml.eos_token_id", 2);
}
