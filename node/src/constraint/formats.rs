//! The names of `format` that JSON schema defines.

use super::compiler::GrammarError;

/// What a name asks of a text.
pub enum Format {
    /// A pattern, in the syntax of the `regex` crate.
    Pattern(String),
    /// llguidance has it under this name, and to the letter.
    Known(&'static str),
    /// The same, but for how many characters there may be.
    KnownUpTo(&'static str, u32),
    /// Nothing: JSON schema does not define it, so it tells people something and asserts nothing.
    Note,
}

pub fn format(name: &str) -> Result<Format, GrammarError> {
    Ok(match name {
        "date" => pattern(&date()),
        "time" => pattern(TIME),
        "date-time" => pattern(&format!("{}T{TIME}", date())),
        "duration" => Format::Known("duration"),
        "ipv4" => Format::Known("ipv4"),
        "ipv6" => Format::Known("ipv6"),
        "uuid" => Format::Known("uuid"),
        // Of those that reach beyond ASCII, the part within it.
        "email" | "idn-email" => Format::Known("email"),
        "hostname" => Format::KnownUpTo("hostname", HOSTNAME_CHARS_MAX),
        "idn-hostname" => pattern(IDN_HOSTNAME),
        "uri" | "iri" => Format::Known("uri"),
        "uri-reference" | "iri-reference" => pattern(URI_REFERENCE),
        "uri-template" => pattern(URI_TEMPLATE),
        "json-pointer" => pattern(JSON_POINTER),
        "relative-json-pointer" => pattern(&format!("(?:0|[1-9][0-9]*)(?:#|{JSON_POINTER})")),
        "regex" => {
            return Err(GrammarError::new(
                "`format` may not be \"regex\": that is not supported",
            ));
        }
        _undefined => Format::Note,
    })
}

fn pattern(inside: &str) -> Format {
    Format::Pattern(format!("^(?:{inside})$"))
}

/// With the 29th of February in leap years alone. Without the year 0, which many programs do not have.
fn date() -> String {
    const YEAR: &str = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
    const FOURTH: &str = "(?:0[48]|[2468][048]|[13579][26])";
    format!(
        "(?:{YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)\
         |02-(?:0[1-9]|1[0-9]|2[0-8]))|(?:[0-9]{{2}}{FOURTH}|{FOURTH}00)-02-29)"
    )
}

/// Without leap seconds, which are valid at one moment of some years.
const TIME: &str = concat!(
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?",
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
);

/// RFC 1035, section 2.3.4: 255 octets with a length before each label and the root's at the end.
const HOSTNAME_CHARS_MAX: u32 = 253;

/// Two hyphens in a row may announce a word in Punycode, which has to be one.
const IDN_HOSTNAME: &str = concat!(
    "[a-zA-Z0-9]{1,15}(?:-[a-zA-Z0-9]{1,15}){0,3}",
    r"(?:\.[a-zA-Z0-9]{1,15}(?:-[a-zA-Z0-9]{1,15}){0,3}){0,2}"
);

/// Without a host in brackets.
const URI_REFERENCE: &str = concat!(
    // With a scheme, or a first segment without a colon.
    r"(?:[a-zA-Z][a-zA-Z0-9+.\-]*:)?",
    r"(?://(?:[a-zA-Z0-9\-._~!$&'()*+,;=]|%[0-9a-fA-F]{2})*(?::[0-9]*)?(?:/(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*)*",
    r"|/(?:(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+(?:/(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*)*)?",
    r"|(?:[a-zA-Z0-9\-._~!$&'()*+,;=@]|%[0-9a-fA-F]{2})+(?:/(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*)*",
    r"|)",
    r"(?:\?(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@/?]|%[0-9a-fA-F]{2})*)?",
    r"(?:#(?:[a-zA-Z0-9\-._~!$&'()*+,;=:@/?]|%[0-9a-fA-F]{2})*)?"
);

/// With names alone in its braces.
const URI_TEMPLATE: &str = r"(?:[a-zA-Z0-9\-._~!$&()*+,;=:@/?#]|%[0-9a-fA-F]{2}|\{[a-zA-Z0-9_]+\})*";

const JSON_POINTER: &str = r"(?:/(?:[^/~\x{0}-\x{1F}\x{7F}]|~[01])*)*";
