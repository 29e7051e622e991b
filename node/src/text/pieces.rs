//! Cuts text into pieces that can be tokenized one by one, so that no regular expression ever sees more than a bounded
//! run of text (they backtrack) and no merge works on an unbounded word.

/// Pieces are cut at a place where no word can span the cut, if there is one in this many bytes …
const PIECE_BYTES: usize = 4 << 10;
/// … or up to here. A run without such a place (text that no one writes) is cut hard, which may cost it one more token.
const PIECE_BYTES_MAX: usize = 32 << 10;

/// The pieces of `text`, in order, without a gap; each at most `PIECE_BYTES_MAX` long.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(piece_end(rest));
        rest = after;
        Some(piece)
    })
}

fn piece_end(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let window = &text[..text.floor_char_boundary(PIECE_BYTES_MAX)];
    let start = text.floor_char_boundary(PIECE_BYTES);
    match first_safe_cut(window, start) {
        Some(cut) => cut,
        None => window.len(),
    }
}

fn first_safe_cut(window: &str, start: usize) -> Option<usize> {
    let before = window[..start].chars().next_back()?;
    let mut previous = before;
    for (offset, next) in window[start..].char_indices() {
        if is_safe_cut(previous, next) {
            return Some(start + offset);
        }
        previous = next;
    }
    None
}

/// No alternative of any pre-tokenizer we know matches across such a pair, and none looks back from behind it.
fn is_safe_cut(before: char, after: char) -> bool {
    let word_to_space = !before.is_whitespace() && after == ' ';
    word_to_space || (is_surely_letter(before) && !after.is_alphabetic())
}

/// A subset of `\p{L}` that covers the scripts written without spaces; `char::is_alphabetic` is more than `\p{L}`.
fn is_surely_letter(letter: char) -> bool {
    letter.is_ascii_alphabetic() || matches!(letter, '\u{3041}'..='\u{3096}' | '\u{4E00}'..='\u{9FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text_and_each_is_bounded() {
        for text in [
            "",
            "short",
            &"^".repeat(100_000),
            &"漢".repeat(50_000),
            &"words and spaces ".repeat(9_000),
        ] {
            assert_eq!(pieces(text).collect::<String>(), *text);
            assert!(pieces(text).all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES_MAX));
        }
    }

    #[test]
    fn ordinary_text_is_cut_before_a_space_that_follows_a_word() {
        let text = "one two  three\n".repeat(1_000);
        let mut offset = 0;
        for piece in pieces(&text) {
            assert!(piece.len() < PIECE_BYTES + 100);
            offset += piece.len();
            assert!(offset == text.len() || !text[offset..].starts_with(char::is_alphabetic));
        }
    }
}
