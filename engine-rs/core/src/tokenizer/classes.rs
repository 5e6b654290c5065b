//! Unicode classes of characters, as the pre-tokenizers' patterns name them: `\p{L}`, `\p{N}`, `\p{M}`, `\p{P}`,
//! `\p{S}` and `\s`, exactly. Two-stage table, built once from the tables that the `regex` crates share.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A set of classes; a character belongs to at most three of them.
pub type Class = u8;

pub const LETTER: Class = 1;
pub const NUMBER: Class = 2;
pub const MARK: Class = 4;
pub const PUNCTUATION: Class = 8;
pub const SYMBOL: Class = 16;
pub const SPACE: Class = 32;
/// `\p{Lu}` or `\p{Lt}`: a letter that only starts a word in mixed case.
pub const UPPER: Class = 64;
/// `\p{Ll}`: a letter that only continues one.
pub const LOWER: Class = 128;

const PATTERNS: [(&str, Class); 8] = [
    (r"\p{L}", LETTER),
    (r"\p{N}", NUMBER),
    (r"\p{M}", MARK),
    (r"\p{P}", PUNCTUATION),
    (r"\p{S}", SYMBOL),
    (r"\s", SPACE),
    (r"[\p{Lu}\p{Lt}]", UPPER),
    (r"\p{Ll}", LOWER),
];

const PAGE: usize = 256;
const PAGES: usize = 0x11_0000 / PAGE;

/// The class of every character.
pub struct Classes {
    ascii: [Class; PAGE],
    page_of: Vec<u16>,
    pages: Vec<[Class; PAGE]>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::build);

impl Classes {
    pub fn get() -> &'static Self {
        &CLASSES
    }

    pub fn of(&self, character: char) -> Class {
        let code = character as usize;
        if code < PAGE {
            return self.ascii[code];
        }
        self.pages[usize::from(self.page_of[code / PAGE])][code % PAGE]
    }

    fn build() -> Self {
        let mut flat = vec![0; PAGES * PAGE];
        for (pattern, class) in PATTERNS {
            for (first, last) in ranges(pattern) {
                flat[first as usize..=last as usize].iter_mut().for_each(|entry| *entry |= class);
            }
        }
        let mut known = HashMap::new();
        let mut classes = Classes { ascii: [0; PAGE], page_of: Vec::with_capacity(PAGES), pages: Vec::new() };
        for chunk in flat.chunks_exact(PAGE) {
            let mut page = [0; PAGE];
            page.copy_from_slice(chunk);
            let position = *known.entry(page).or_insert_with(|| {
                classes.pages.push(page);
                classes.pages.len() - 1
            });
            classes.page_of.push(position as u16);
        }
        classes.ascii = classes.pages[0];
        classes
    }
}

/// Characters of one class that `Class` has no bit for: sorted ranges.
pub struct CharacterSet(Vec<(char, char)>);

impl CharacterSet {
    /// `pattern` is a character class of a regular expression.
    pub fn of(pattern: &str) -> Self {
        CharacterSet(ranges(pattern))
    }

    pub fn contains(&self, character: char) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= character);
        at.checked_sub(1).is_some_and(|at| character <= self.0[at].1)
    }
}

/// The ranges of a character class. A pattern is a constant of this file, so one that is not a class is a bug here.
fn ranges(pattern: &str) -> Vec<(char, char)> {
    use regex_syntax::hir::{Class, HirKind};
    match regex_syntax::parse(pattern).map(|parsed| parsed.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.iter().map(|range| (range.start(), range.end())).collect(),
        _ => unreachable!("`{pattern}` is a Unicode class"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_each_kind_of_character() {
        let cases = [
            ('a', LETTER | LOWER),
            ('Z', LETTER | UPPER),
            ('ǅ', LETTER | UPPER),
            ('ʰ', LETTER),
            ('漢', LETTER),
            ('ª', LETTER),
            ('5', NUMBER),
            ('²', NUMBER),
            ('Ⅷ', NUMBER),
            ('٣', NUMBER),
            ('\u{301}', MARK),
            ('\u{20dd}', MARK),
            ('\u{fe0f}', MARK),
            ('!', PUNCTUATION),
            ('_', PUNCTUATION),
            ('«', PUNCTUATION),
            ('$', SYMBOL),
            ('`', SYMBOL),
            ('😀', SYMBOL),
            (' ', SPACE),
            ('\n', SPACE),
            ('\u{85}', SPACE),
            ('\u{a0}', SPACE),
            ('\u{2028}', SPACE),
            ('\u{3000}', SPACE),
            ('\u{200b}', 0),
            ('\u{200d}', 0),
            ('\u{feff}', 0),
            ('\0', 0),
            ('\u{10ffff}', 0),
        ];
        for (character, class) in cases {
            assert_eq!(Classes::get().of(character), class, "{character:?}");
        }
    }

    #[test]
    fn sets_hold_their_ranges() {
        let marks = CharacterSet::of(r"\p{Mn}");
        for (character, held) in [('\u{300}', true), ('\u{36f}', true), ('a', false), ('\0', false), ('\u{93e}', false)]
        {
            assert_eq!(marks.contains(character), held, "{character:?}");
        }
    }

    #[test]
    fn agrees_with_the_standard_library() {
        let classes = Classes::get();
        for character in '\0'..=char::MAX {
            assert_eq!(classes.of(character) & SPACE != 0, character.is_whitespace(), "{character:?}");
        }
    }
}
