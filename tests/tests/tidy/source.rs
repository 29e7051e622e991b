//! A Rust file with comments and literals blanked out, so that words in them fool nobody.

use std::ops::Range;

pub struct Source {
    /// Relative to the workspace, with `/`.
    pub path: String,
    /// The text with comments and literals replaced by spaces; lines keep their numbers.
    pub code: String,
    product: String,
    lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text, &comments_and_literals(text));
        let product = if is_test_path(path) {
            String::new()
        } else {
            blank(&code, &test_items(&code))
        };
        Source {
            path: path.to_owned(),
            product,
            code,
            lines: text.lines().count(),
        }
    }

    /// The code without `#[cfg(test)]` items; empty for test and bench files.
    pub fn product_code(&self) -> &str {
        &self.product
    }

    /// This file is compiled only for tests, as its parent says.
    pub fn mark_as_test(&mut self) {
        self.product.clear();
    }

    /// The modules in files of their own that exist only in tests.
    pub fn test_modules(&self) -> Vec<String> {
        let declared = |range: Range<usize>| {
            let item = self.code[range]
                .trim_end()
                .strip_suffix(';')?
                .rsplit_once("mod ")?
                .1;
            Some(item.trim().to_owned())
        };
        test_items(&self.code).into_iter().filter_map(declared).collect()
    }

    pub fn too_long(&self, lines_max: usize) -> Option<String> {
        (self.lines > lines_max).then(|| format!("{} has {} lines", self.path, self.lines))
    }

    /// Functions outside of tests with more lines than `lines_max`, signature included.
    pub fn long_functions(&self, lines_max: usize) -> Vec<String> {
        let functions = self
            .product
            .match_indices("fn ")
            .filter_map(|(start, _)| self.function_at(start));
        functions
            .filter(|function| function.lines > lines_max)
            .map(|function| {
                format!(
                    "{}:{}: {} has {} lines",
                    self.path, function.line, function.name, function.lines
                )
            })
            .collect()
    }

    fn function_at(&self, start: usize) -> Option<Function<'_>> {
        let code = &self.product;
        if code[..start].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_') {
            return None;
        }
        let name = code[start + 3..]
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .next()?;
        let end = item_end(code, start)?;
        if name.is_empty() || !code[..end].ends_with('}') {
            return None;
        }
        let line = code[..start].matches('\n').count() + 1;
        Some(Function {
            name,
            line,
            lines: code[start..end].matches('\n').count() + 1,
        })
    }
}

struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| matches!(part, "tests" | "benches" | "fuzz" | "examples"))
}

fn blank(text: &str, ranges: &[Range<usize>]) -> String {
    let mut result = text.as_bytes().to_vec();
    for byte in ranges.iter().flat_map(|range| range.clone()) {
        if result[byte] != b'\n' {
            result[byte] = b' ';
        }
    }
    String::from_utf8(result).expect("ranges begin and end at characters")
}

/// Items under `#[cfg(test)]`, attribute included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    code.match_indices("#[cfg(test)]")
        .filter_map(|(start, attribute)| Some(start..item_end(code, start + attribute.len())?))
        .collect()
}

/// Where the item that begins at `start` ends: after its `;`, or after the brace that closes its body.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (offset, byte) in code.as_bytes()[start..].iter().enumerate() {
        match byte {
            b'{' => braces += 1,
            b'}' => braces = braces.checked_sub(1)?,
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.checked_sub(1)?,
            _ => {}
        }
        let ends = matches!(byte, b'}' | b';');
        if ends && braces == 0 && brackets == 0 {
            return Some(start + offset + 1);
        }
    }
    None
}

fn comments_and_literals(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = literal_length(text, at);
        if length > 0 {
            found.push(at..at + length);
        }
        at += length.max(1);
    }
    found
}

/// The length of the comment or literal that begins at byte `at`; 0 when none does.
fn literal_length(text: &str, at: usize) -> usize {
    // Inside a character of several bytes nothing begins.
    let Some(rest) = text.get(at..) else { return 0 };
    let after_name = text[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    if rest.starts_with("//") {
        rest.find('\n').unwrap_or(rest.len())
    } else if rest.starts_with("/*") {
        block_comment_length(rest)
    } else if rest.starts_with('"') {
        quoted_length(rest)
    } else if !after_name && (rest.starts_with('r') || rest.starts_with("br")) {
        raw_string_length(rest)
    } else if rest.starts_with('\'') {
        character_length(rest)
    } else {
        0
    }
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let two = rest.as_bytes().get(at..at + 2);
        match two {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) | None => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_length(rest: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in rest.bytes().enumerate() {
        if byte == b'"' && !escaped {
            return at + 1;
        }
        escaped = at == 0 && byte != b'"' || byte == b'\\' && !escaped && at > 0;
    }
    rest.len()
}

fn raw_string_length(rest: &str) -> usize {
    let start = if rest.starts_with('b') { 2 } else { 1 };
    let hashes = rest[start..].bytes().take_while(|byte| *byte == b'#').count();
    if !rest[start + hashes..].starts_with('"') {
        return 0;
    }
    let body = start + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    rest[body..]
        .find(&end)
        .map_or(rest.len(), |length| body + length + end.len())
}

/// A character literal, not a lifetime.
fn character_length(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |length| length + 4),
        Some(_) => letters
            .next()
            .filter(|(_, letter)| *letter == '\'')
            .map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("node/src/x.rs", text)
            .code
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked_and_nothing_else() {
        assert_eq!(code("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(
            code(r#"a("b \" c", 'd', '\'', '\u{1F680}', '"', e)"#),
            "a( , , , , , e)"
        );
        assert_eq!(
            code(r###"a(r#"b " c"#, br"d\", b"e", b'f', "é")"###),
            "a( , , b , b , )"
        );
        assert_eq!(
            code("fn f<'a>(x: &'a str, r: u8, br: u8) {}"),
            "fn f<'a>(x: &'a str, r: u8, br: u8) {}"
        );
        assert_eq!(code("a(\"\", \"b\\\\\", c)"), "a( , , c)");
    }

    #[test]
    fn items_under_cfg_test_are_no_product_code() {
        let source = Source::new(
            "node/src/x.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { [1; 2]; }\n}\nfn c() {}",
        );
        assert!(!source.product_code().contains('b'));
        assert!(source.product_code().contains("fn c()"));
    }

    #[test]
    fn modules_that_exist_only_in_tests_are_named() {
        let source = Source::new(
            "node/src/x.rs",
            "#[cfg(test)]\npub mod story;\nmod other;\n#[cfg(test)]\nmod tests {}",
        );
        assert_eq!(source.test_modules(), vec!["story".to_owned()]);
    }
}
