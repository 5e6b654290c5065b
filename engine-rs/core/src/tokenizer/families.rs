//! The model families by the name that GGUF files give their pre-tokenizer. A name is listed only when every rule that
//! it implies is implemented; any other is refused by name, because a wrong split degrades answers silently.

use super::classes::{LETTER, MARK};
use super::pretokenize::Rule;

/// What a pre-tokenizer's name implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    pub rules: &'static [Rule],
    /// A word that is a token as a whole is not merged.
    pub whole_words: bool,
    /// Whether the begin token is added when the metadata does not say.
    pub add_bos: bool,
}

const GPT2: &[Rule] = &[Rule::Gpt2];
const SINGLE_DIGITS: &[Rule] = &[Rule::Digits, Rule::Gpt2];
const LLAMA3: &[Rule] = &[Rule::Words { digits: 3, letters: LETTER }];
const QWEN2: &[Rule] = &[Rule::Words { digits: 1, letters: LETTER }];
const QWEN35: &[Rule] = &[Rule::Words { digits: 1, letters: LETTER | MARK }];
const TEKKEN: &[Rule] = &[Rule::Cased { digits: 1, contractions: false }];
const GPT4O: &[Rule] = &[Rule::Cased { digits: 3, contractions: true }];
const FALCON: &[Rule] = &[Rule::Punctuation { backtick: true }, Rule::Gpt2, Rule::AsciiTriples];
/// Files from before pre-tokenizers had names.
const UNNAMED: &[Rule] = &[Rule::Punctuation { backtick: false }, Rule::Gpt2, Rule::Numbers, Rule::AsciiTriples];

const fn plain(rules: &'static [Rule]) -> Family {
    Family { rules, whole_words: false, add_bos: false }
}

const FAMILIES: [(&[&str], Family); 11] = [
    (&["default"], plain(UNNAMED)),
    (
        &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        plain(GPT2),
    ),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        plain(SINGLE_DIGITS),
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        Family { rules: LLAMA3, whole_words: true, add_bos: true },
    ),
    (&["smaug-bpe", "dbrx", "chatglm-bpe"], plain(LLAMA3)),
    (&["glm4", "glm5"], Family { rules: LLAMA3, whole_words: true, add_bos: false }),
    (
        &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        plain(QWEN2),
    ),
    (&["qwen35"], plain(QWEN35)),
    (&["tekken"], Family { rules: TEKKEN, whole_words: true, add_bos: true }),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], plain(GPT4O)),
    (&["falcon"], plain(FALCON)),
];

/// The family of a pre-tokenizer's name; a file without one is of the default family.
pub fn family(name: Option<&str>) -> Option<Family> {
    let name = name.filter(|name| !name.is_empty()).unwrap_or("default");
    FAMILIES.iter().find(|(names, _)| names.contains(&name)).map(|(_, family)| *family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_has_two_families() {
        let mut names: Vec<_> = FAMILIES.iter().flat_map(|(names, _)| *names).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_missing_name_is_the_default_family() {
        assert_eq!(family(None), family(Some("default")));
        assert_eq!(family(Some("")), family(Some("default")));
        assert_eq!(family(Some("no-such-model")), None);
    }
}
