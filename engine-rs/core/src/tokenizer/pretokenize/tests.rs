//! Words of each rule, one row per branch of its expression.

use super::super::families::family;
use super::*;

fn words(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let family = family(Some(name)).expect("a listed family");
    split(family.rules, text, &mut |word| found.push(word.to_owned()));
    found
}

fn check(name: &str, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(words(name, text), *expected, "{name}: {text:?}");
    }
}

#[test]
fn gpt2_words() {
    check(
        "gpt-2",
        &[
            ("", &[]),
            ("Hello world", &["Hello", " world"]),
            ("it's I'M they'll'", &["it", "'s", " I", "'", "M", " they", "'ll", "'"]),
            (" 's", &[" '", "s"]),
            ("'sé", &["'s", "é"]),
            ("12345 67", &["12345", " 67"]),
            ("a  b", &["a", " ", " b"]),
            ("a \n b", &["a", " \n", " b"]),
            ("a   ", &["a", "   "]),
            ("   ", &["   "]),
            ("\n\n", &["\n\n"]),
            ("a\n\nb", &["a", "\n", "\n", "b"]),
            ("x=-1;", &["x", "=-", "1", ";"]),
            (" ...!", &[" ...!"]),
            ("漢字か", &["漢字か"]),
            ("e\u{301}a", &["e", "\u{301}", "a"]),
            ("\u{a0}a", &["\u{a0}", "a"]),
            ("²Ⅷ1", &["²Ⅷ1"]),
            ("a\u{200d}b", &["a", "\u{200d}", "b"]),
        ],
    );
}

#[test]
fn llama3_words() {
    check(
        "llama-bpe",
        &[
            ("Hello world", &["Hello", " world"]),
            ("it's I'M they'Ll'", &["it", "'s", " I", "'M", " they", "'Ll", "'"]),
            ("'ſx 'ReX", &["'ſ", "x", " '", "ReX"]),
            ("'ReX", &["'Re", "X"]),
            ("'tis", &["'t", "is"]),
            ("12345 67", &["123", "45", " ", "67"]),
            ("(abc)", &["(abc", ")"]),
            ("\tabc", &["\tabc"]),
            ("\nabc", &["\n", "abc"]),
            ("\u{301}abc", &["\u{301}abc"]),
            ("a  b", &["a", " ", " b"]),
            ("a\n \n  b", &["a", "\n \n", " ", " b"]),
            ("a  \n", &["a", "  \n"]),
            ("a  ", &["a", "  "]),
            (" ", &[" "]),
            ("!\n\n a", &["!\n\n", " a"]),
            (" !\r\n", &[" !\r\n"]),
            (" !/\n", &[" !/\n"]),
            ("  !", &[" ", " !"]),
            ("\u{85}1", &["\u{85}", "1"]),
            ("😀a", &["😀a"]),
            ("😀😀a", &["😀😀", "a"]),
        ],
    );
}

#[test]
fn qwen_words() {
    check("qwen2", &[("a12 3", &["a", "1", "2", " ", "3"]), ("ne\u{301}e", &["ne", "\u{301}e"])]);
    check(
        "qwen35",
        &[
            ("ne\u{301}e", &["ne\u{301}e"]),
            ("\u{301}", &["\u{301}"]),
            ("!\u{301}a", &["!\u{301}a"]),
            ("!!\u{301}", &["!!", "\u{301}"]),
        ],
    );
}

#[test]
fn cased_words() {
    check(
        "gpt-4o",
        &[
            ("HelloWorld", &["Hello", "World"]),
            ("HTTPServer", &["HTTPServer"]),
            ("helloWORLD", &["hello", "WORLD"]),
            ("don't DON'T", &["don't", " DON'T"]),
            ("'tis", &["'tis"]),
            ("a's1234", &["a's", "123", "4"]),
            ("漢字Ab", &["漢字Ab"]),
            ("b漢字Ab", &["b漢字", "Ab"]),
            ("A漢字", &["A漢字"]),
            ("\u{301}A", &["\u{301}", "A"]),
            ("\u{301}\u{301}", &["\u{301}\u{301}"]),
            ("\u{301}", &["\u{301}"]),
            ("AʰB", &["Aʰ", "B"]),
            ("!/\n/x", &["!/\n/", "x"]),
            ("ǅa", &["ǅa"]),
        ],
    );
    check("tekken", &[("don't 12", &["don", "'t", " ", "1", "2"])]);
}

#[test]
fn words_of_several_rules() {
    check("starcoder", &[("ab 123c", &["ab", " ", "1", "2", "3", "c"])]);
    check("falcon", &[("a!`b 12345", &["a", "!`", "b", " ", "123", "45"])]);
    check("default", &[("a! 12345", &["a", "!", " ", "123", "45"]), ("`a", &["`", "a"])]);
}

#[test]
fn words_join_to_the_text() {
    let text = "\r\n \u{3000}It'S\t１２３ ﬁ ½ 👩‍👩‍👧 नमस्ते\u{0}\u{feff}A漢ʰb'll  \n\n /x\u{2028}";
    for name in ["default", "gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "falcon"] {
        for start in text.char_indices().map(|(start, _)| start) {
            assert_eq!(words(name, &text[start..]).concat(), text[start..], "{name}");
        }
    }
}
