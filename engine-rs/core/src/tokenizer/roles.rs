//! Which tokens steer the model or end its answer. Metadata names a few of them; many published files forget some or
//! give them the wrong type, so well-known names count as well - the same names, with the same exceptions, as in
//! llama.cpp, because people compare where an answer stops.

use std::collections::{BTreeSet, HashMap};

use super::Parts;
use super::vocabulary::Kind;

/// End an answer wherever they occur.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Parts of a fill-in-the-middle prompt: the role, whether it ends an answer, and the names it goes by.
const INFILL: [(&str, bool, &[&str]); 6] = [
    (
        "fim_pre",
        false,
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        "fim_suf",
        false,
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        "fim_mid",
        false,
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    ("fim_pad", true, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    ("fim_rep", true, &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    ("fim_sep", true, &["<|file_sep|>"]),
];

/// Markers of the harmony format inside an answer: shown, so that whoever parses the answer sees them.
const SHOWN: [&str; 4] = ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Corrects `kinds` and returns the tokens that end an answer.
pub fn assign(parts: &Parts<'_>, kinds: &mut [Kind]) -> BTreeSet<u32> {
    let bracketed = bracketed(parts);
    let named = |names: &[&str]| names.iter().filter_map(|name| bracketed.get(name.as_bytes())).min().copied();
    let mut ends = BTreeSet::new();
    for (role, ending, names) in INFILL {
        let by_name = || named(names).inspect(|&id| kinds[id as usize] = Kind::Control);
        if let Some(id) = parts.role(role).or_else(by_name).filter(|_| ending) {
            ends.insert(id);
        }
    }
    for name in ENDS {
        if let Some(id) = named(&[name]) {
            kinds[id as usize] = Kind::Control;
            ends.insert(id);
        }
    }
    ends.extend(["eos", "eot", "eom"].into_iter().filter_map(|role| parts.role(role)));
    for id in SHOWN.into_iter().filter_map(|name| named(&[name])) {
        kinds[id as usize] = Kind::UserDefined;
    }
    except(parts, kinds, &mut ends);
    ends
}

/// Every token that may have one of the names above, by its text.
fn bracketed<'a>(parts: &Parts<'a>) -> HashMap<&'a [u8], u32> {
    let starts = |text: &[u8]| text.starts_with(b"<") || text.starts_with(b"[") || text.contains(&b'<');
    let tokens = parts.tokens.iter().zip(0..);
    tokens.filter(|(text, _)| starts(text)).map(|(text, id)| (*text, id)).collect()
}

/// Two families use a well-known name for something else.
fn except(parts: &Parts<'_>, kinds: &mut [Kind], ends: &mut BTreeSet<u32>) {
    let ending = |name: &str, ends: &BTreeSet<u32>| {
        ends.iter().copied().find(|&id| parts.tokens[id as usize] == name.as_bytes())
    };
    let has = |name: &str, ends: &BTreeSet<u32>| ending(name, ends).is_some();
    let calls = has("<|call|>", ends) || has("<|calls|>", ends);
    // Harmony closes each message of an answer with `<|end|>`, and the answer with `<|return|>` or `<|call|>`.
    if let Some(id) = ending("<|end|>", ends).filter(|_| calls && (has("<|return|>", ends) || has("<|flush|>", ends))) {
        ends.remove(&id);
        kinds[id as usize] = Kind::UserDefined;
    }
    // Here `</s>` is the closing tag of HTML's `<s>`.
    let markup = has("<|tool_response>", ends) || has("<|plamo:eos|>", ends);
    if let Some(id) = ending("</s>", ends).filter(|_| markup) {
        ends.remove(&id);
        kinds[id as usize] = Kind::Normal;
    }
}
