//! Reads the parts of a tokenizer from the metadata of a GGUF file.

use std::collections::BTreeMap;

use super::{Parts, Tokenizer};
use crate::error::Result;
use crate::gguf::Gguf;

/// Roles and the keys that name their token, newest first.
const ROLES: [(&str, &[&str]); 12] = [
    ("bos", &["bos_token_id", "cls_token_id"]),
    ("eos", &["eos_token_id"]),
    ("eot", &["eot_token_id"]),
    ("eom", &["eom_token_id"]),
    ("unknown", &["unknown_token_id"]),
    // Misspelt in every file there is.
    ("sep", &["seperator_token_id", "separator_token_id"]),
    ("fim_pre", &["fim_pre_token_id", "prefix_token_id"]),
    ("fim_suf", &["fim_suf_token_id", "suffix_token_id"]),
    ("fim_mid", &["fim_mid_token_id", "middle_token_id"]),
    ("fim_pad", &["fim_pad_token_id"]),
    ("fim_rep", &["fim_rep_token_id"]),
    ("fim_sep", &["fim_sep_token_id"]),
];

impl Tokenizer {
    /// The tokenizer that the file describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let model = gguf.str("tokenizer.ggml.model")?;
        let present = |key: &str| gguf.get(key).is_some();
        let parts = Parts {
            model,
            pre: gguf.opt_str("tokenizer.ggml.pre")?,
            name: gguf.opt_str("general.name")?,
            tokens: gguf.strings("tokenizer.ggml.tokens")?,
            scores: if present("tokenizer.ggml.scores") { gguf.f32s("tokenizer.ggml.scores")? } else { Vec::new() },
            kinds: if present("tokenizer.ggml.token_type") {
                gguf.i32s("tokenizer.ggml.token_type")?
            } else {
                Vec::new()
            },
            merges: if model == "gpt2" { gguf.strings("tokenizer.ggml.merges")? } else { Vec::new() },
            roles: roles(gguf)?,
            add_bos: gguf.opt_bool("tokenizer.ggml.add_bos_token")?,
            add_eos: gguf.opt_bool("tokenizer.ggml.add_eos_token")?,
            add_sep: gguf.opt_bool("tokenizer.ggml.add_sep_token")?,
            add_space_prefix: gguf.opt_bool("tokenizer.ggml.add_space_prefix")?,
            remove_extra_whitespaces: gguf.opt_bool("tokenizer.ggml.remove_extra_whitespaces")?,
            lowercase: gguf.opt_bool("tokenizer.ggml.normalizer.lowercase")?,
            strip_accents: gguf.opt_bool("tokenizer.ggml.normalizer.strip_accents")?,
        };
        Tokenizer::new(&parts)
    }
}

fn roles(gguf: &Gguf) -> Result<BTreeMap<&'static str, u32>> {
    let mut roles = BTreeMap::new();
    for (role, keys) in ROLES {
        for key in keys {
            if let Some(id) = gguf.opt_u32(&format!("tokenizer.ggml.{key}"))? {
                roles.entry(role).or_insert(id);
            }
        }
    }
    Ok(roles)
}
