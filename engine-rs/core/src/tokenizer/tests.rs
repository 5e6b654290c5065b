//! What a token's type, name and role mean to the whole tokenizer.

use super::*;

/// (text, type): a byte-level vocabulary with every kind of special token.
const TOKENS: [(&str, i32); 12] = [
    ("a", 1),
    ("Ġ", 1),
    ("<|endoftext|>", 3),
    ("<|im_start|>", 3),
    ("<|im_end|>", 1),
    ("<think>", 4),
    ("<unk>", 2),
    ("[unused]", 5),
    ("<|channel|>", 3),
    ("<0x41>", 6),
    ("<think>a", 4),
    ("éĠ", 4),
];

fn parts() -> Parts<'static> {
    Parts {
        model: "gpt2",
        pre: Some("gpt-2"),
        tokens: TOKENS.iter().map(|(text, _)| text.as_bytes()).collect(),
        kinds: TOKENS.iter().map(|(_, kind)| *kind).collect(),
        ..Parts::default()
    }
}

fn id(text: &str) -> u32 {
    TOKENS.iter().position(|(token, _)| *token == text).expect("a token") as u32
}

#[test]
fn each_kind_shows_its_bytes() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    let cases: [(&str, &[u8], bool, bool); 12] = [
        ("a", b"a", false, false),
        ("Ġ", b" ", false, false),
        ("<|endoftext|>", b"", true, true),
        ("<|im_start|>", b"", true, false),
        ("<|im_end|>", b"", true, true),
        ("<think>", b"<think>", false, false),
        ("<unk>", b"", false, false),
        ("[unused]", b"", false, false),
        ("<|channel|>", b"<|channel|>", false, false),
        ("<0x41>", b"A", false, false),
        ("<think>a", b"<think>a", false, false),
        ("éĠ", "éĠ".as_bytes(), false, false),
    ];
    for (text, bytes, control, end) in cases {
        let token = id(text);
        assert_eq!(tokenizer.token_bytes(token), bytes, "{text}");
        assert_eq!(tokenizer.is_control(token), control, "{text}");
        assert_eq!(tokenizer.is_end(token), end, "{text}");
    }
    assert_eq!(tokenizer.token_bytes(TOKENS.len() as u32), b"");
    assert!(!tokenizer.is_end(u32::MAX));
    assert_eq!(tokenizer.size(), TOKENS.len());
}

#[test]
fn special_text_is_parsed_on_request() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    let cases: [(&str, bool, &[&str]); 6] = [
        ("a<|im_start|>a", true, &["a", "<|im_start|>", "a"]),
        ("a<|im_start|>a", false, &["a", "a", "a"]),
        ("<think> a", false, &["<think>", "Ġ", "a"]),
        ("<think>aa", false, &["<think>a", "a"]),
        ("<unk>", true, &["<unk>"]),
        ("[unused]", true, &[]),
    ];
    for (text, parse_special, expected) in cases {
        let expected: Vec<u32> = expected.iter().map(|token| id(token)).collect();
        let mut found = tokenizer.encode(text, false, parse_special);
        found.retain(|&token| token != id("Ġ") || expected.contains(&token));
        assert_eq!(found, expected, "{text} {parse_special}");
    }
}

/// Neither by merging nor as a whole word, even if a file has a control token that looks like a word.
#[test]
fn plain_text_never_becomes_a_control_token() {
    let tokens: Vec<&[u8]> = vec![b"<", b"s", b">", b"<s", b"s>", b"<s>", b"x", b"s>x"];
    let kinds = vec![1, 1, 1, 1, 1, 3, 1, 2];
    let merges: Vec<&[u8]> = vec![b"< s", b"s >", b"<s >", b"s> x"];
    let byte_level = Parts { model: "gpt2", pre: Some("llama-bpe"), merges, tokens, kinds, ..Parts::default() };
    let sentencepiece = Parts {
        model: "llama",
        tokens: byte_level.tokens.clone(),
        kinds: byte_level.kinds.clone(),
        ..Parts::default()
    };
    for parts in [byte_level, sentencepiece] {
        let tokenizer = Tokenizer::new(&parts).unwrap();
        for text in ["<s>", "s>x", "<s>x"] {
            let tokens = tokenizer.encode(text, false, false);
            assert!(!tokens.contains(&5) && !tokens.contains(&7), "{} {text}", parts.model);
        }
        assert!(tokenizer.encode("<s>", false, true).contains(&5));
    }
}

#[test]
fn begin_and_end_follow_the_flags() {
    let roles = BTreeMap::from([("bos", 2), ("eos", 4)]);
    let cases = [
        (None, None, vec![0]),
        (Some(true), None, vec![2, 0]),
        (Some(true), Some(true), vec![2, 0, 4]),
        (Some(false), Some(true), vec![0, 4]),
    ];
    for (add_bos, add_eos, expected) in cases {
        let tokenizer = Tokenizer::new(&Parts { roles: roles.clone(), add_bos, add_eos, ..parts() }).unwrap();
        assert_eq!(tokenizer.encode("a", true, false), expected);
        assert_eq!(tokenizer.encode("a", false, false), [0]);
        assert_eq!(tokenizer.adds_bos(), add_bos == Some(true));
    }
    let llama = Tokenizer::new(&Parts { roles, pre: Some("llama-bpe"), ..parts() }).unwrap();
    assert_eq!(llama.encode("", true, false), [2]);
}

#[test]
fn roles_out_of_range_are_ignored() {
    let roles = BTreeMap::from([("bos", 99), ("eot", 5)]);
    let tokenizer = Tokenizer::new(&Parts { roles, add_bos: Some(true), ..parts() }).unwrap();
    assert_eq!(tokenizer.bos(), None);
    assert_eq!(tokenizer.encode("a", true, false), [0]);
    assert_eq!(tokenizer.ends().collect::<Vec<_>>(), [2, 4, 5]);
}

#[test]
fn families_may_use_an_end_name_for_more() {
    let cases: [(&[&str], &[u32]); 4] = [
        (&["a", "<|end|>", "<|return|>"], &[1, 2]),
        (&["a", "<|end|>", "<|return|>", "<|call|>"], &[2, 3]),
        (&["</s>", "<eos>"], &[0, 1]),
        (&["</s>", "<|tool_response>"], &[1]),
    ];
    for (tokens, ends) in cases {
        let tokens = tokens.iter().map(|text| text.as_bytes()).collect();
        let tokenizer = Tokenizer::new(&Parts { model: "gpt2", tokens, ..Parts::default() }).unwrap();
        assert_eq!(tokenizer.ends().collect::<Vec<_>>(), ends);
    }
}

#[test]
fn phi3_drops_blanks_after_special_tokens() {
    let tokens = vec![&b"<unk>"[..], b"<s>", b"</s>", b"<|user|>", "▁".as_bytes(), b"a"];
    let named = |name| Parts { model: "llama", name: Some(name), tokens: tokens.clone(), ..Parts::default() };
    let kinds = vec![2, 3, 3, 3, 1, 1];
    let cases = [("Phi-3 mini", "<|user|> \n a", vec![3, 4, 5]), ("Phi-3 mini", "<s> a", vec![1, 4, 4, 5])];
    for (name, text, expected) in cases {
        let tokenizer = Tokenizer::new(&Parts { kinds: kinds.clone(), ..named(name) }).unwrap();
        assert_eq!(tokenizer.encode(text, false, true), expected, "{name} {text:?}");
    }
    let other = Tokenizer::new(&Parts { kinds, ..named("Llama") }).unwrap();
    assert_eq!(other.encode("<|user|> a", false, true), [3, 4, 4, 5]);
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let cases: [(Parts<'_>, &str); 6] = [
        (Parts { model: "t5", ..parts() }, "model `t5`"),
        (Parts { pre: Some("no-such"), ..parts() }, "pre-tokenizer `no-such`"),
        (Parts { tokens: Vec::new(), ..parts() }, "0 tokens"),
        (Parts { kinds: vec![1], ..parts() }, "1 token types for 12 tokens"),
        (Parts { scores: vec![1.0; 3], ..parts() }, "3 token scores for 12 tokens"),
        (Parts { merges: vec![b"ab"], ..parts() }, "merge 0, `ab`"),
    ];
    for (parts, expected) in cases {
        let error = Tokenizer::new(&parts).err().expect("an error");
        assert_eq!(error.code(), "unsupported_tokenizer");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let twice = Parts { tokens: vec![b"a", b"a"], kinds: Vec::new(), ..parts() };
    assert!(Tokenizer::new(&twice).err().expect("an error").to_string().contains("token 1 repeats the text `a`"));
}
