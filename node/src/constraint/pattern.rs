//! From the regular expressions of JSON schema, which are those of ECMAScript, to those of the compiler.
//!
//! Both languages take most texts, and mean different things by some: a bracket inside a class, a space, a dot. So every
//! part is read here and written anew, and what has no equal is refused.

use super::compiler::GrammarError;
use std::iter::Peekable;
use std::str::Chars;

/// What no string of an answer holds, because JSON would have to write it as `\uXXXX` (see [`super::schema`]).
const UNWRITABLE: &str = r"\x{0}-\x{7}\x{B}\x{E}-\x{1F}\x{7F}";
const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
const SPACE: &str = concat!(
    r"\x{9}-\x{D}\x{20}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}",
    r"\x{202F}\x{205F}\x{3000}\x{FEFF}"
);
const LINE_END: &str = r"\x{A}\x{D}\x{2028}\x{2029}";

pub fn is_writable(letter: char) -> bool {
    !matches!(letter, '\0'..='\x07' | '\x0b' | '\x0e'..='\x1f' | '\x7f')
}

/// `pattern` in the syntax of the `regex` crate, with the same matches among what can be written.
pub fn translate(pattern: &str) -> Result<String, GrammarError> {
    let mut translation = Translation {
        rest: pattern.chars().peekable(),
        pattern,
        out: String::with_capacity(pattern.len() * 2),
        last: Last::Other,
    };
    while let Some(letter) = translation.rest.next() {
        translation.part(letter)?;
    }
    Ok(translation.out)
}

struct Translation<'a> {
    rest: Peekable<Chars<'a>>,
    pattern: &'a str,
    out: String,
    last: Last,
}

/// What was read last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Repetition,
    /// With the mark that makes it take as little as it can.
    Lazy,
    Other,
}

/// What an escape stands for.
enum Atom {
    Letter(char),
    /// The inside of a class.
    Set(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Class,
    Outside,
}

impl Translation<'_> {
    fn refuse(&self, what: &str) -> GrammarError {
        let start: String = self.pattern.chars().take(80).collect();
        GrammarError::new(format!("{what} is not supported in `pattern`: {start}"))
    }

    fn part(&mut self, letter: char) -> Result<(), GrammarError> {
        let last = std::mem::replace(&mut self.last, Last::Other);
        match letter {
            '?' if last == Last::Repetition => {
                self.out.push('?');
                self.last = Last::Lazy;
            }
            '*' | '+' | '?' => self.repetition(last, &letter.to_string())?,
            '{' => match self.count() {
                Some(count) => self.repetition(last, &count)?,
                None => self.letter('{')?,
            },
            '^' | '$' | '|' | ')' => self.out.push(letter),
            '(' => self.group()?,
            '[' => self.class()?,
            '.' => self.set(&format!("[^{LINE_END}]")),
            '\\' => match self.escape(Place::Outside)? {
                Atom::Letter(letter) => self.letter(letter)?,
                Atom::Set(inside) => self.set(&inside),
            },
            other => self.letter(other)?,
        }
        Ok(())
    }

    fn repetition(&mut self, last: Last, times: &str) -> Result<(), GrammarError> {
        if last != Last::Other {
            return Err(self.refuse("a repetition of a repetition"));
        }
        self.out.push_str(times);
        self.last = Last::Repetition;
        Ok(())
    }

    fn letter(&mut self, letter: char) -> Result<(), GrammarError> {
        if !is_writable(letter) {
            return Err(self.refuse("a control character"));
        }
        if letter.is_ascii_punctuation() {
            self.out.push('\\');
        }
        self.out.push(letter);
        Ok(())
    }

    fn set(&mut self, inside: &str) {
        self.out.push_str(&format!("[{inside}&&[^{UNWRITABLE}]]"));
    }

    /// What groups capture is asked of nobody.
    fn group(&mut self) -> Result<(), GrammarError> {
        self.out.push_str("(?:");
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        match self.rest.next() {
            Some(':') => Ok(()),
            Some('<') if self.rest.peek().is_some_and(|letter| !"=!".contains(*letter)) => {
                while self.rest.next_if(|letter| *letter != '>').is_some() {}
                self.rest.next();
                Ok(())
            }
            Some('=' | '!' | '<') => Err(self.refuse("looking ahead or behind")),
            Some(_) | None => Err(self.refuse("a group that begins with `(?`")),
        }
    }

    /// `{2,3}`; what does not look like it is a brace and no more.
    fn count(&mut self) -> Option<String> {
        let inside: String = self.rest.clone().take_while(|letter| *letter != '}').collect();
        let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        if least.is_empty() || !is_number(least) || !is_number(most) || !is_closed {
            return None;
        }
        self.rest.nth(inside.len());
        Some(format!("{{{inside}}}"))
    }

    fn class(&mut self) -> Result<(), GrammarError> {
        let sign = self.rest.next_if_eq(&'^').map_or("", |_| "^");
        let mut inside = String::new();
        while let Some(first) = self.item()? {
            if self.rest.peek() != Some(&'-') {
                push(&mut inside, &first);
                continue;
            }
            self.rest.next();
            match (first, self.item()?) {
                (Atom::Letter(first), Some(Atom::Letter(last))) if first <= last => {
                    inside.push_str(&format!("{}-{}", code(first), code(last)));
                }
                (Atom::Letter(_), Some(Atom::Letter(_))) => {
                    return Err(self.refuse("a range that runs backwards"));
                }
                // A dash that stands beside something else than two letters is one.
                (first, second) => {
                    push(&mut inside, &first);
                    push(&mut inside, &Atom::Letter('-'));
                    match second {
                        Some(second) => push(&mut inside, &second),
                        None => break,
                    }
                }
            }
        }
        if inside.is_empty() {
            let everything = code('\0') + "-" + &code(char::MAX);
            inside = format!("[^{everything}]");
        }
        self.set(&format!("[{sign}{inside}]"));
        Ok(())
    }

    /// `None`: the class ends here.
    fn item(&mut self) -> Result<Option<Atom>, GrammarError> {
        match self.rest.next() {
            Some(']') => Ok(None),
            Some('\\') => self.escape(Place::Class).map(Some),
            Some(letter) => Ok(Some(Atom::Letter(letter))),
            None => Err(self.refuse("a class without an end")),
        }
    }

    /// After the backslash.
    fn escape(&mut self, place: Place) -> Result<Atom, GrammarError> {
        let set = |inside: &str| Ok(Atom::Set(inside.to_owned()));
        match self.rest.next() {
            Some('d') => set(DIGIT),
            Some('w') => set(WORD),
            Some('s') => set(SPACE),
            Some('D') => set(&format!("[^{DIGIT}]")),
            Some('W') => set(&format!("[^{WORD}]")),
            Some('S') => set(&format!("[^{SPACE}]")),
            Some('t') => Ok(Atom::Letter('\t')),
            Some('n') => Ok(Atom::Letter('\n')),
            Some('r') => Ok(Atom::Letter('\r')),
            Some('f') => Ok(Atom::Letter('\x0c')),
            Some('v') => Ok(Atom::Letter('\x0b')),
            Some('b') if place == Place::Class => Ok(Atom::Letter('\x08')),
            Some('x') => self.hexadecimal(2),
            Some('u') => self.unicode(),
            Some(kind @ ('p' | 'P')) => self.property(kind),
            Some(letter) if letter.is_alphanumeric() => Err(self.refuse(&format!("`\\{letter}`"))),
            Some(letter) => Ok(Atom::Letter(letter)),
            None => Err(self.refuse("a backslash at the end")),
        }
    }

    fn hexadecimal(&mut self, digits: usize) -> Result<Atom, GrammarError> {
        let letter = self.code(digits).and_then(char::from_u32);
        letter
            .map(Atom::Letter)
            .ok_or_else(|| self.refuse("such a hexadecimal escape"))
    }

    fn code(&mut self, digits: usize) -> Option<u32> {
        let text: String = (0..digits)
            .map_while(|_| self.rest.next_if(char::is_ascii_hexdigit))
            .collect();
        (text.len() == digits)
            .then(|| u32::from_str_radix(&text, 16).ok())
            .flatten()
    }

    /// `\u{…}`, `\uXXXX`, or two of those for one character.
    fn unicode(&mut self) -> Result<Atom, GrammarError> {
        if self.rest.next_if_eq(&'{').is_some() {
            let digits = self.rest.clone().take_while(|letter| *letter != '}').count();
            let atom = self.hexadecimal(digits);
            self.rest.next();
            return atom;
        }
        let high = self.code(4);
        let Some(high @ 0xd800..0xdc00) = high else {
            let letter = high.and_then(char::from_u32);
            return letter
                .map(Atom::Letter)
                .ok_or_else(|| self.refuse("such a `\\u`"));
        };
        let is_pair = self.rest.next() == Some('\\') && self.rest.next() == Some('u');
        let low = self
            .code(4)
            .filter(|low| is_pair && (0xdc00..0xe000).contains(low));
        let letter = low.and_then(|low| char::from_u32(0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00))));
        letter
            .map(Atom::Letter)
            .ok_or_else(|| self.refuse("half of a surrogate pair"))
    }

    fn property(&mut self, kind: char) -> Result<Atom, GrammarError> {
        let is_name = |letter: &char| letter.is_ascii_alphanumeric() || "_=".contains(*letter);
        let is_open = self.rest.next_if_eq(&'{').is_some();
        let name: String = std::iter::from_fn(|| self.rest.next_if(is_name)).collect();
        match is_open && self.rest.next_if_eq(&'}').is_some() {
            true => Ok(Atom::Set(format!("\\{kind}{{{name}}}"))),
            false => Err(self.refuse("`\\p` without a property")),
        }
    }
}

fn push(inside: &mut String, atom: &Atom) {
    match atom {
        Atom::Letter(letter) => inside.push_str(&code(*letter)),
        Atom::Set(set) => inside.push_str(set),
    }
}

fn code(letter: char) -> String {
    format!("\\x{{{:X}}}", u32::from(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_languages_read_alike_stays_and_the_rest_is_written_out() {
        for (pattern, translated) in [
            ("^a(b|c)?d{2,3}?$", "^a(?:b|c)?d{2,3}?$"),
            ("(?<stop>a)(?:b)", "(?:a)(?:b)"),
            ("a{,2}{x", r"a\{\,2\}\{x"),
            (r"\/\-\.\u0041\u{42}\x43\uD83D\uDE00", "\\/\\-\\.ABC\u{1f600}"),
            ("}]", r"\}\]"),
        ] {
            assert_eq!(translate(pattern).unwrap(), translated);
        }
        let class = |inside: &str| format!("[{inside}&&[^{UNWRITABLE}]]");
        for (pattern, inside) in [
            ("[a[&&]", r"[\x{61}\x{5B}\x{26}\x{26}]"),
            ("[a-c-]", r"[\x{61}-\x{63}\x{2D}]"),
            (r"[\w-.]", r"[0-9A-Za-z_\x{2D}\x{2E}]"),
            (r"[^\b\]]", r"[^\x{8}\x{5D}]"),
            (".", r"[^\x{A}\x{D}\x{2028}\x{2029}]"),
            (r"\D", "[^0-9]"),
            (r"\p{Lu}", r"\p{Lu}"),
            ("[^]", r"[^[^\x{0}-\x{10FFFF}]]"),
        ] {
            assert_eq!(translate(pattern).unwrap(), class(inside), "{pattern}");
        }
    }

    #[test]
    fn what_has_no_equal_is_refused() {
        for pattern in [
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?<!a)",
            "(?i)a",
            r"\ba",
            r"(a)\1",
            r"\k<a>",
            r"\cA",
            r"\0",
            r"\x0",
            r"\u12",
            r"\uD83D",
            r"\uD83Dx",
            r"\a",
            r"\A",
            r"\v",
            r"\x01",
            "\u{1}",
            "[b-a]",
            "[a",
            "a\\",
            r"\p",
            r"\p{L",
            r"\u{110000}",
            "(?",
            "a**",
            "a{2}{3}",
            "a??+",
        ] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }
}
