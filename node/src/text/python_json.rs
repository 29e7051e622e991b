//! JSON as Python's `json.dumps(value, ensure_ascii=False, indent=…)` writes it.

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io::{self, Write};

/// In one line.
pub fn line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, OneLine))?;
    Ok(text(bytes))
}

/// With each member in a line of its own, `indent` spaces deeper than its parent.
pub fn indented(value: &impl Serialize, indent: usize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    let spaces = vec![b' '; indent];
    let formatter = Lines(PrettyFormatter::with_indent(&spaces));
    value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(text(bytes))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("JSON is written as UTF-8")
}

/// The shortest digits that read back the same; with an exponent below 1e-4 and from 1e16 on.
fn write_float<W: ?Sized + Write>(writer: &mut W, value: f64) -> io::Result<()> {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("asked for an exponent");
    let exponent: i32 = exponent.parse().expect("a number's exponent");
    if (-4..16).contains(&exponent) {
        let point = if value.fract() == 0.0 { ".0" } else { "" };
        write!(writer, "{value}{point}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(writer, "{digits}e{sign}{:02}", exponent.abs())
    }
}

/// `", "` and `": "` between the parts.
struct OneLine;

impl Formatter for OneLine {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_float(writer, value)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// serde_json's own lines, with Python's numbers.
struct Lines<'a>(PrettyFormatter<'a>);

impl Formatter for Lines<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_float(writer, value)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The texts are what CPython 3.12 writes.
    #[test]
    fn numbers_are_written_as_in_python() {
        let numbers = json!([
            1.0,
            -0.5,
            1e15,
            1e16,
            123456789012345680.0,
            0.0001,
            0.00001,
            1.5e-7,
            0.0,
            7
        ]);
        let expected =
            "[1.0, -0.5, 1000000000000000.0, 1e+16, 1.2345678901234568e+17, 0.0001, 1e-05, 1.5e-07, 0.0, 7]";
        assert_eq!(line(&numbers).unwrap(), expected);
    }

    #[test]
    fn lines_are_broken_as_in_python() {
        let value = json!({"a": [1.0, {}], "é": []});
        let expected = "{\n  \"a\": [\n    1.0,\n    {}\n  ],\n  \"é\": []\n}";
        assert_eq!(indented(&value, 2).unwrap(), expected);
        assert_eq!(line(&value).unwrap(), "{\"a\": [1.0, {}], \"é\": []}");
    }
}
