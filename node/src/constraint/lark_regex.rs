//! Where regexes stand in a text of Lark, which is cut into words as llguidance does it.

use std::ops::Range;

/// `/inside/flags`, by bytes.
pub struct LarkRegex {
    pub inside: Range<usize>,
    pub flags: Range<usize>,
}

/// In the order of the text. In the JSON of `%json` strings alone may hold a slash, and they end as those of Lark do.
pub fn find(lark: &str) -> Vec<LarkRegex> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = lark[at..].find(['"', '/', '#', '<']).map(|start| at + start) {
        let mark = lark.as_bytes()[start];
        let is_comment = mark == b'#' || lark[start..].starts_with("//");
        let inside = start + 1;
        if is_comment {
            at = past(lark, inside, '\n');
            continue;
        }
        if mark == b'<' {
            // A special token, `</s>`.
            at = past(lark, inside, '>');
            continue;
        }
        let end = inside + inside_bytes(&lark[inside..], mark);
        at = (end + 1).min(lark.len());
        if mark == b'/' {
            let flags = lark[at..].bytes().take_while(|byte| b"imslux".contains(byte));
            let flags = at..at + flags.count();
            at = flags.end;
            found.push(LarkRegex {
                inside: inside..end,
                flags,
            });
        }
    }
    found
}

fn past(text: &str, from: usize, end: char) -> usize {
    text[from..]
        .find(end)
        .map_or(text.len(), |bytes| from + bytes + end.len_utf8())
}

/// Up to the first `mark` that has no backslash before it, or to the end.
fn inside_bytes(text: &str, mark: u8) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == mark && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regexes_are_found_among_all_that_looks_like_them() {
        let parts = |lark: &str| -> Vec<String> {
            let regexes = find(lark).into_iter();
            regexes
                .map(|regex| format!("{}:{}", &lark[regex.inside], &lark[regex.flags]))
                .collect()
        };
        assert_eq!(parts(r#"a: "/x/" /"\/\\/i | /é/"#), [r#""\/\\:i"#, "é:"]);
        assert_eq!(parts("a: </s> /b/ // /c/\nd: # /e/\n /f/"), ["b:", "f:"]);
        assert_eq!(parts(r#"a: %json {"\"/": "/x/"} /b/"#), ["b:"]);
        assert_eq!(parts("a: /b"), ["b:"]);
        assert_eq!(parts("a: \"b\\"), [""; 0]);
    }
}
