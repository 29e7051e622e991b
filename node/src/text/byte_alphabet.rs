//! The alphabet in which byte-level vocabularies are written: one printable character for each of the 256 bytes.
//!
//! Printable Latin-1 bytes stand for themselves; the others, in order, for U+0100 onwards (GPT-2's `bytes_to_unicode`).

use std::sync::LazyLock;

static CHAR_OF_BYTE: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut spare = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        printable @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => printable as char,
        _unprintable => spare.next().expect("the range has no end before char::MAX"),
    })
});

/// Above every character of the alphabet.
const ALPHABET_END: usize = 0x144;

static BYTE_OF_CHAR: LazyLock<[Option<u8>; ALPHABET_END]> = LazyLock::new(|| {
    let mut bytes = [None; ALPHABET_END];
    for (byte, letter) in CHAR_OF_BYTE.iter().enumerate() {
        bytes[*letter as usize] = Some(byte as u8);
    }
    bytes
});

/// How `byte` is written.
pub fn letter(byte: u8) -> char {
    CHAR_OF_BYTE[byte as usize]
}

/// The bytes that `token` stands for; `None` when it has a character from outside the alphabet.
pub fn decoded(token: &str) -> Option<Vec<u8>> {
    token
        .chars()
        .map(|letter| *BYTE_OF_CHAR.get(letter as usize)?)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter_of_its_own_and_comes_back() {
        for byte in 0..=255u8 {
            assert_eq!(decoded(&letter(byte).to_string()), Some(vec![byte]));
        }
    }

    #[test]
    fn the_letters_are_those_of_gpt_2() {
        let written: String = "a b\n\u{7f}é".bytes().map(letter).collect();
        assert_eq!(written, "aĠbĊġÃ©");
        assert_eq!(decoded("漢"), None);
        assert_eq!(decoded("\u{144}"), None);
    }
}
