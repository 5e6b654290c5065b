//! Merging within words, on a vocabulary small enough to read.

use super::super::{Parts, Tokenizer};

/// All bytes of ASCII letters and blanks, then the results of the merges below.
fn tokenizer(merges: &[&str], extra: &[&str], pre: &str) -> Tokenizer {
    let letters: Vec<String> = ('a'..='z').chain(['Ġ', 'Ã', '©']).map(String::from).collect();
    let tokens = letters.iter().map(String::as_str).chain(extra.iter().copied());
    Tokenizer::new(&Parts {
        model: "gpt2",
        pre: Some(pre),
        tokens: tokens.map(str::as_bytes).collect(),
        merges: merges.iter().map(|merge| merge.as_bytes()).collect(),
        ..Parts::default()
    })
    .expect("a valid vocabulary")
}

fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let tokens = tokenizer.encode(text, false, false);
    tokens.iter().map(|&id| String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned()).collect()
}

#[test]
fn merges_the_lowest_rank_first() {
    let tokenizer = tokenizer(&["b c", "a b", "a bc"], &["bc", "ab", "abc"], "gpt-2");
    assert_eq!(pieces(&tokenizer, "abc"), ["abc"]);
    assert_eq!(pieces(&tokenizer, "abd"), ["ab", "d"]);
    assert_eq!(pieces(&tokenizer, "abab"), ["ab", "ab"]);
}

#[test]
fn merges_the_leftmost_of_equal_ranks() {
    let tokenizer = tokenizer(&["a a"], &["aa"], "gpt-2");
    assert_eq!(pieces(&tokenizer, "aaa"), ["aa", "a"]);
    assert_eq!(pieces(&tokenizer, &"a".repeat(101)).iter().filter(|piece| *piece == "aa").count(), 50);
}

#[test]
fn a_repeated_merge_keeps_its_first_rank() {
    let tokenizer = tokenizer(&["b c", "a b", "b c"], &["bc", "ab"], "gpt-2");
    assert_eq!(pieces(&tokenizer, "abc"), ["a", "bc"]);
}

#[test]
fn long_and_short_words_merge_alike() {
    let merges = ["a b", "c d", "ab cd", "d a", "b c", "abcd abcd"];
    let tokenizer = tokenizer(&merges, &["ab", "cd", "abcd", "da", "bc", "abcdabcd"], "gpt-2");
    let mut seed = 7u32;
    for length in 1..200 {
        let word: String = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'a' + (seed >> 24) as u8 % 4)
            })
            .collect();
        assert_eq!(pieces(&tokenizer, &word), by_definition(&word, &merges), "{word}");
    }
}

/// The definition, without any table: merge the leftmost pair of the lowest rank until there is none.
fn by_definition(word: &str, merges: &[&str]) -> Vec<String> {
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    loop {
        let rank = |at: &usize| merges.iter().position(|merge| *merge == format!("{} {}", parts[*at], parts[at + 1]));
        let candidates = (0..parts.len() - 1).filter_map(|at| Some((rank(&at)?, at)));
        let Some((_, at)) = candidates.min() else {
            return parts;
        };
        let right = parts.remove(at + 1);
        parts[at] += &right;
    }
}

#[test]
fn a_result_that_is_no_token_falls_back_to_bytes() {
    let tokenizer = tokenizer(&["a b", "ab c"], &["abc"], "gpt-2");
    assert_eq!(pieces(&tokenizer, "abc"), ["abc"]);
    assert_eq!(pieces(&tokenizer, "abd"), ["a", "b", "d"]);
}

#[test]
fn whole_words_need_no_merges() {
    assert_eq!(pieces(&tokenizer(&[], &["abc"], "llama-bpe"), "abc abc"), ["abc", " ", "a", "b", "c"]);
    assert_eq!(pieces(&tokenizer(&[], &["abc"], "qwen2"), "abc"), ["a", "b", "c"]);
}

#[test]
fn characters_are_bytes() {
    let tokenizer = tokenizer(&["Ã ©"], &["Ã©"], "gpt-2");
    assert_eq!(tokenizer.encode("é", false, false).len(), 1);
    assert_eq!(pieces(&tokenizer, "é"), ["é"]);
    assert_eq!(tokenizer.encode("漢", false, false), [] as [u32; 0]);
}

#[test]
fn repeated_words_come_out_the_same() {
    let tokenizer = tokenizer(&["a b", "Ġ ab"], &["ab", "Ġab"], "gpt-2");
    let expected = [vec!["ab"], vec![" ab"; 99]].concat();
    assert_eq!(pieces(&tokenizer, &["ab"; 100].join(" ")), expected);
}
