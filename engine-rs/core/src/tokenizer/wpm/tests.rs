use crate::tokenizer::{Parts, Tokenizer};

const TOKENS: [&str; 21] = [
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "▁play",
    "ing",
    "▁cafe",
    "▁!",
    "▁,",
    "▁漢",
    "▁字",
    "▁un",
    "aff",
    "able",
    "▁p",
    "l",
    "a",
    "▁$",
    "▁ᄒ",
    "ᅡ",
    "ᆫ",
    "▁का",
];

fn parts() -> Parts<'static> {
    Parts {
        model: "bert",
        tokens: TOKENS.iter().map(|token| token.as_bytes()).collect(),
        kinds: (0..TOKENS.len()).map(|id| if id < 3 { 3 } else { 1 }).collect(),
        roles: [("unknown", 0), ("bos", 1), ("sep", 2)].into(),
        ..Parts::default()
    }
}

fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<&'static str> {
    tokenizer.encode(text, false, false).into_iter().map(|id| TOKENS[id as usize]).collect()
}

#[test]
fn longest_tokens_cover_words() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("playing", &["▁play", "ing"]),
        ("unaffable", &["▁un", "aff", "able"]),
        ("  play\t\nplaying ", &["▁play", "▁play", "ing"]),
        ("pla", &["▁p", "l", "a"]),
        ("playx", &["[UNK]"]),
        ("plaz play", &["[UNK]", "▁play"]),
        ("ing", &["[UNK]"]),
        ("PLAYING", &["▁play", "ing"]),
        ("Café!", &["▁cafe", "▁!"]),
        ("cafe\u{301},", &["▁cafe", "▁,"]),
        ("play漢字play", &["▁play", "▁漢", "▁字", "▁play"]),
        ("$play$", &["▁$", "▁play", "▁$"]),
        ("pl\u{ad}\u{200b}ay\0", &["▁play"]),
        ("pl\u{b}ay", &["▁play"]),
        ("play\u{3000}ing\u{a0}play", &["▁play", "[UNK]", "▁play"]),
        ("한", &["▁ᄒ", "ᅡ", "ᆫ"]),
        ("का", &["▁का"]),
        ("un▁play", &["[UNK]"]),
        ("▁play", &["[UNK]"]),
        ("[CLS]", &["[UNK]", "[UNK]", "[UNK]"]),
    ];
    for (text, expected) in cases {
        assert_eq!(spelled(&tokenizer, text), *expected, "{text:?}");
    }
}

#[test]
fn very_long_words_are_unknown() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    let word = |length: usize| format!("p{}", "l".repeat(length - 1));
    assert_eq!(tokenizer.encode(&word(100), false, false).len(), 100);
    assert_eq!(spelled(&tokenizer, &word(101)), ["[UNK]"]);
}

#[test]
fn begin_and_separator_follow_the_flags() {
    let flags = |add_bos, add_sep| Tokenizer::new(&Parts { add_bos, add_sep, ..parts() }).unwrap();
    for (add_bos, add_sep, expected) in [
        (None, None, &[1, 3, 2][..]),
        (Some(false), None, &[3, 2]),
        (None, Some(false), &[1, 3]),
        (Some(true), Some(true), &[1, 3, 2]),
    ] {
        assert_eq!(flags(add_bos, add_sep).encode("play", true, false), expected);
        assert_eq!(flags(add_bos, add_sep).encode("play", false, false), [3]);
    }
}

#[test]
fn cased_vocabularies_keep_case_and_accents() {
    let cased = Parts { lowercase: Some(false), ..parts() };
    assert_eq!(spelled(&Tokenizer::new(&cased).unwrap(), "Play play café"), ["[UNK]", "▁play", "[UNK]"]);
    let stripped = Parts { lowercase: Some(false), strip_accents: Some(true), ..parts() };
    assert_eq!(spelled(&Tokenizer::new(&stripped).unwrap(), "Play café"), ["[UNK]", "▁cafe"]);
}

#[test]
fn special_tokens_are_parsed_on_request() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    assert_eq!(tokenizer.encode("play [SEP]play", false, true), [3, 2, 3]);
}
