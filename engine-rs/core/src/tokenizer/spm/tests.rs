//! Joining by score, on a vocabulary small enough to read.

use super::super::{Parts, Tokenizer};

const TOKENS: [(&str, f32, i32); 16] = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("<0x0A>", 0.0, 6),
    ("<0xC3>", 0.0, 6),
    ("<0xA9>", 0.0, 6),
    ("▁", -10.0, 1),
    ("a", -11.0, 1),
    ("b", -12.0, 1),
    ("c", -13.0, 1),
    ("ab", -2.0, 1),
    ("bc", -1.0, 1),
    ("abc", -3.0, 1),
    ("▁a", -4.0, 1),
    ("▁▁", -5.0, 1),
    ("<tool>", 0.0, 4),
];

fn parts() -> Parts<'static> {
    Parts {
        model: "llama",
        tokens: TOKENS.iter().map(|(text, _, _)| text.as_bytes()).collect(),
        scores: TOKENS.iter().map(|(_, score, _)| *score).collect(),
        kinds: TOKENS.iter().map(|(_, _, kind)| *kind).collect(),
        ..Parts::default()
    }
}

fn texts(tokenizer: &Tokenizer, text: &str) -> Vec<&'static str> {
    tokenizer.encode(text, false, true).iter().map(|&id| TOKENS[id as usize].0).collect()
}

#[test]
fn joins_the_highest_score_first() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("abc", &["▁", "abc"]),
        ("ab", &["▁", "ab"]),
        ("aa", &["▁a", "a"]),
        ("a b", &["▁a", "▁", "b"]),
        ("  b", &["▁▁", "▁", "b"]),
        ("é", &["▁", "<0xC3>", "<0xA9>"]),
        ("\n", &["▁", "<0x0A>"]),
        ("漢", &["▁", "<unk>", "<unk>", "<unk>"]),
        ("▁a", &["▁", "▁a"]),
        ("<s>a<s>a", &["<s>", "▁a", "<s>", "▁a"]),
        ("a<tool>a", &["▁a", "<tool>", "▁a"]),
    ];
    for (text, expected) in cases {
        assert_eq!(texts(&tokenizer, text), *expected, "{text:?}");
    }
}

#[test]
fn the_blank_in_front_is_optional() {
    let without = Tokenizer::new(&Parts { add_space_prefix: Some(false), ..parts() }).unwrap();
    assert_eq!(texts(&without, "a a"), ["a", "▁a"]);
    let squeezed = Tokenizer::new(&Parts { remove_extra_whitespaces: Some(true), ..parts() }).unwrap();
    assert_eq!(texts(&squeezed, "  a   a "), ["▁a", "▁a"]);
}

#[test]
fn equal_scores_join_from_the_left() {
    let equal = Tokenizer::new(&Parts { scores: Vec::new(), ..parts() }).unwrap();
    assert_eq!(texts(&equal, "bc"), ["▁", "bc"]);
    assert_eq!(texts(&equal, "abab"), ["▁a", "b", "ab"]);
}

/// The same texts whether or not a token reaches over the start of a word.
#[test]
fn words_are_encoded_as_in_the_whole_text() {
    let reaching = |extra: &'static str| {
        let mut parts = parts();
        parts.tokens.push(extra.as_bytes());
        parts.scores.push(-0.5);
        parts.kinds.push(1);
        Tokenizer::new(&parts).unwrap()
    };
    // This token is never joined, but it keeps texts in one piece.
    let (whole, words) = (reaching("a▁b▁c▁\n▁Z"), Tokenizer::new(&parts()).unwrap());
    for text in ["abc abc abc", "a  b c a", "bc bc\nbc a", " a", "a ", "ab ab  ab  "] {
        assert_eq!(texts(&whole, text), texts(&words, text), "{text:?}");
    }
    let joined = reaching("c▁").encode("abc abc", false, false);
    assert_eq!(joined, [6, 10, 16, 12]);
}

#[test]
fn control_text_stays_text() {
    let tokenizer = Tokenizer::new(&parts()).unwrap();
    assert!(!tokenizer.encode("<s>", false, false).contains(&1));
    assert_eq!(tokenizer.encode("a", true, false), [1, 13]);
    assert_eq!(tokenizer.decode(&[1, 13, 4, 5, 3, 15, 2]), " aé\n<tool>".as_bytes());
}

#[test]
fn order_of_scores_is_kept() {
    let scores = [f32::NEG_INFINITY, -2.5, -1e-9, 0.0, 1e-9, 3.0, f32::INFINITY];
    let ordered: Vec<u32> = scores.iter().map(|&score| super::order(score)).collect();
    assert!(ordered.is_sorted_by(|a, b| a < b));
    assert_eq!(super::order(-0.0), super::order(0.0));
}
