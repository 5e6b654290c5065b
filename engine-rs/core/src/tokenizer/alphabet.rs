//! The printable alphabet of byte-level BPE: GPT-2 writes each byte of a token as one character, so that vocabulary
//! files stay readable. Printable bytes of Latin-1 stand for themselves; the other 68 follow from U+0100 in order.

use std::sync::LazyLock;

/// First character that stands for a byte with no printable form.
const SHIFTED: u32 = 0x100;
const SHIFTED_BYTES: usize = 68;

fn printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

static UNPRINTABLE: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=255).filter(|&byte| !printable(byte)).collect());

/// The byte that a character of the alphabet stands for.
fn byte_of(character: char) -> Option<u8> {
    match u8::try_from(character) {
        Ok(byte) => printable(byte).then_some(byte),
        Err(_) => {
            let position = (character as u32).checked_sub(SHIFTED)? as usize;
            (position < SHIFTED_BYTES).then(|| UNPRINTABLE[position])
        }
    }
}

/// The bytes that `text` spells, or `None` when a character is outside the alphabet.
pub fn read(text: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok()?.chars().map(byte_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_alphabet() {
        let cases: &[(&str, Option<&[u8]>)] = &[
            ("abc", Some(b"abc")),
            ("Ġhello", Some(b" hello")),
            ("Ċ", Some(b"\n")),
            ("ĉ", Some(b"\t")),
            ("Ã©", Some("é".as_bytes())),
            ("Ā", Some(b"\0")),
            ("ġ", Some(b"\x7f")),
            ("Ń", Some(b"\xad")),
            ("", Some(b"")),
            (" ", None),
            ("\u{ad}", None),
            ("ń", None),
            ("<｜end｜>", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(read(text.as_bytes()).as_deref(), *bytes, "{text:?}");
        }
        assert_eq!(read(b"\xff"), None);
    }

    #[test]
    fn covers_every_byte_once() {
        let mut seen: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
    }
}
