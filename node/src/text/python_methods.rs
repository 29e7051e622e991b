//! The methods of Python's strings, lists and dicts that chat templates call.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

/// Called by the template engine for a method that it does not have itself.
pub fn call_python_method(
    _state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return call_on_text(text, method, args);
    }
    if value.kind() == ValueKind::Map {
        return call_on_map(value, method, args);
    }
    Err(unknown(method))
}

fn unknown(method: &str) -> Error {
    Error::new(
        ErrorKind::UnknownMethod,
        format!("there is no method `{method}` here"),
    )
}

fn call_on_text(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "strip" => trimmed(text, args, |text, is_cut| text.trim_matches(is_cut).to_string()),
        "lstrip" => trimmed(text, args, |text, is_cut| {
            text.trim_start_matches(is_cut).to_string()
        }),
        "rstrip" => trimmed(text, args, |text, is_cut| {
            text.trim_end_matches(is_cut).to_string()
        }),
        "split" => split(text, args),
        "splitlines" => no_args(args).map(|()| text.lines().map(Value::from).collect()),
        "startswith" => has_affix(args, |affix| text.starts_with(affix)),
        "endswith" => has_affix(args, |affix| text.ends_with(affix)),
        "removeprefix" => one_text(args).map(|affix| text.strip_prefix(affix).unwrap_or(text).into()),
        "removesuffix" => one_text(args).map(|affix| text.strip_suffix(affix).unwrap_or(text).into()),
        "replace" => {
            let (from, to): (&str, &str) = from_args(args)?;
            Ok(text.replace(from, to).into())
        }
        "find" => one_text(args).map(|part| position(text, part)),
        "count" => one_text(args).map(|part| text.matches(part).count().into()),
        "upper" => no_args(args).map(|()| text.to_uppercase().into()),
        "lower" => no_args(args).map(|()| text.to_lowercase().into()),
        "capitalize" => no_args(args).map(|()| capitalized(text).into()),
        "title" => no_args(args).map(|()| titled(text).into()),
        "isdigit" => no_args(args).map(|()| (!text.is_empty() && text.chars().all(char::is_numeric)).into()),
        "join" => {
            let (parts,): (Vec<String>,) = from_args(args)?;
            Ok(parts.join(text).into())
        }
        other => Err(unknown(other)),
    }
}

fn call_on_map(map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "items" => {
            no_args(args)?;
            let pair = |key: Value| Ok(Value::from(vec![key.clone(), map.get_item(&key)?]));
            map.try_iter()?.map(pair).collect()
        }
        "keys" => no_args(args).and_then(|()| Ok(map.try_iter()?.collect())),
        "values" => no_args(args).and_then(|()| map.try_iter()?.map(|key| map.get_item(&key)).collect()),
        "get" => {
            let (key, otherwise): (&Value, Option<Value>) = from_args(args)?;
            let found = map.get_item(key)?;
            Ok(if found.is_undefined() {
                otherwise.unwrap_or(Value::from(()))
            } else {
                found
            })
        }
        other => Err(unknown(other)),
    }
}

fn no_args(args: &[Value]) -> Result<(), Error> {
    from_args::<()>(args)
}

fn one_text(args: &[Value]) -> Result<&str, Error> {
    from_args::<(&str,)>(args).map(|(text,)| text)
}

fn trimmed(
    text: &str,
    args: &[Value],
    trim: fn(&str, &dyn Fn(char) -> bool) -> String,
) -> Result<Value, Error> {
    let (letters,): (Option<&str>,) = from_args(args)?;
    let is_cut = |letter: char| letters.map_or(letter.is_whitespace(), |letters| letters.contains(letter));
    Ok(trim(text, &is_cut).into())
}

fn split(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, splits_max): (Option<&str>, Option<i64>) = from_args(args)?;
    let parts_max = splits_max
        .and_then(|splits| usize::try_from(splits).ok())
        .map_or(usize::MAX, |n| n + 1);
    match separator {
        Some("") => Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) => Ok(text.splitn(parts_max, separator).map(Value::from).collect()),
        None => Ok(text.split_whitespace().map(Value::from).collect()),
    }
}

fn has_affix(args: &[Value], test: impl Fn(&str) -> bool) -> Result<Value, Error> {
    let (affix,): (&Value,) = from_args(args)?;
    match affix.as_str() {
        Some(affix) => Ok(test(affix).into()),
        // Python takes a tuple of alternatives too.
        None => Ok(affix
            .try_iter()?
            .any(|one| one.as_str().is_some_and(&test))
            .into()),
    }
}

/// In characters; -1 when absent.
fn position(text: &str, part: &str) -> Value {
    match text.find(part) {
        Some(offset) => text[..offset].chars().count().into(),
        None => (-1).into(),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first
            .to_uppercase()
            .chain(letters.flat_map(char::to_lowercase))
            .collect(),
        None => String::new(),
    }
}

/// Python's idea of a title: every letter after something else than a letter is big, the others small.
fn titled(text: &str) -> String {
    let mut before = ' ';
    let mut title = String::with_capacity(text.len());
    for letter in text.chars() {
        match before.is_alphabetic() {
            true => title.extend(letter.to_lowercase()),
            false => title.extend(letter.to_uppercase()),
        }
        before = letter;
    }
    title
}
