//! Fills in the files of a project.

use serde::Serialize;
use serde_json::{
    Serializer, Value,
    ser::{Formatter, PrettyFormatter},
};
use std::io::{self, Write};

/// Fills in every `{{NAME}}` whose name is in `values`. What is filled in is not looked at again.
pub(super) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out += before;
        let named = after.split_once("}}").and_then(|(name, after)| {
            let mut values = values.iter();
            let (_, value) = values.find(|(known, _)| *known == name)?;
            Some((value, after))
        });
        match named {
            Some((value, after)) => {
                out += value;
                rest = after;
            }
            None => {
                out += "{{";
                rest = after;
            }
        }
    }
    out + rest
}

/// Returns a value as JSON, which is JavaScript as well.
pub(super) fn javascript(value: &Value) -> String {
    format!("{value:#}")
}

/// Returns a value as Python.
pub(super) fn python(value: &Value) -> anyhow::Result<String> {
    let mut out = Vec::new();
    let formatter = PythonFormatter(PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter))?;
    Ok(String::from_utf8(out)?)
}

/// Returns text as comments, so that none of it is taken for code.
pub(super) fn comments(mark: &str, lines: &[&str]) -> String {
    let lines = lines.iter().flat_map(|text| text.trim().lines());
    let lines: Vec<String> = lines
        .map(|line| format!("{mark} {}", plain(line)).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Returns text without what could end a line in some language.
pub(super) fn plain(text: &str) -> String {
    let ends_line = |letter: char| letter.is_control() || "\u{2028}\u{2029}".contains(letter);
    text.replace(ends_line, " ")
}

/// Writes Python instead of JSON, which differs in three words.
struct PythonFormatter<'a>(PrettyFormatter<'a>);

impl Formatter for PythonFormatter<'_> {
    fn write_null<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"None")
    }

    fn write_bool<W: Write + ?Sized>(&mut self, writer: &mut W, value: bool) -> io::Result<()> {
        writer.write_all(if value { b"True" } else { b"False" })
    }

    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_not_filled_in_again() {
        let values = [("A", "{{B}}".to_owned()), ("B", "b".to_owned())];
        let filled = fill("{{A}} {{B}} {{C}} {{ a}", &values);
        assert_eq!(filled, "{{B}} b {{C}} {{ a}");
    }

    #[test]
    fn json_becomes_python() {
        let value = json!({"a": [null, true, false, 1.5, "None\n'\""], "b": {}});
        let text = python(&value).expect("text");
        let expected = "{\n    \"a\": [\n        None,\n        True,\n        False,\n        \
                        1.5,\n        \"None\\n'\\\"\"\n    ],\n    \"b\": {}\n}";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_comment_cannot_end_early() {
        let text = comments("//", &["a\r\nb\u{2028}c\u{b}d", ""]);
        assert_eq!(text, "// a\n// b c d");
    }
}
