//! Configuration files: reading them, and mistakes in them with their places.

use std::{fmt, fs::File, io::Read as _, path::Path};

use anyhow::Context as _;
use toml::de::{DeTable, DeValue};

/// A mistake that makes a configuration invalid. It is one line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    text: String,
    /// The keys and places in lists that lead to it, if it is about one.
    path: Vec<Step>,
    position: Option<Position>,
}

/// A step on the way from the file to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Key(&'static str),
    Item(usize),
}

/// A place in a text; the first line and the first column are 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    line: usize,
    column: usize,
}

impl Mistake {
    /// Describes a mistake in the value of a key.
    pub fn at(key: &'static str, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            path: vec![Step::Key(key)],
            position: None,
        }
    }

    /// Says that it is in one item of the list that it is about.
    pub fn in_item(mut self, index: usize) -> Self {
        self.path.push(Step::Item(index));
        self
    }

    /// Says that it is in the table of a key.
    pub fn in_table(mut self, key: &'static str) -> Self {
        self.path.insert(0, Step::Key(key));
        self.text = format!("'{key}': {}", self.text);
        self
    }

    /// Says in which entry of a list of tables it is, by its number in the file. `what` names the
    /// entry.
    pub fn in_entry(mut self, list: &'static str, index: usize, what: &str) -> Self {
        self.path.splice(0..0, [Step::Key(list), Step::Item(index)]);
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// Says that it is not in the file, but on the command line.
    pub fn outside(mut self) -> Self {
        self.path.clear();
        self
    }

    /// Finds the mistake in the text of the file.
    pub fn found_in(mut self, text: &str) -> Self {
        let offset = DeTable::parse(text)
            .ok()
            .and_then(|file| offset(file.get_ref(), &self.path));
        self.position = offset.map(|offset| Position::new(text, offset));
        self
    }

    /// Takes over a mistake that the parser has found in the text of the file.
    pub fn parsed(error: &toml::de::Error, file: &str) -> Self {
        // Without the file's text, it prints its message and the keys.
        let mut bare = error.clone();
        bare.set_input(None);
        let bare = bare.to_string();
        let (message, keys) = bare.trim_end().rsplit_once("\nin `").unwrap_or((&bare, ""));
        let message = message.trim_end().replace('\n', "; ");
        let text = match keys.trim_end_matches('`') {
            "" => message,
            keys => format!("'{keys}': {message}"),
        };
        Self {
            text,
            path: Vec::new(),
            position: error.span().map(|span| Position::new(file, span.start)),
        }
    }

    /// Describes it with the name of its file.
    pub fn of_file(self, file: &Path) -> anyhow::Error {
        anyhow::anyhow!(self.in_file(file.display()))
    }

    /// Returns the text with the name of its file.
    pub fn in_file(&self, file: impl fmt::Display) -> String {
        let separator = if self.position.is_some() { "" } else { " " };
        format!("{file}:{separator}{self}")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}: ")?;
        }
        // Names and values are the writer's, and might look like further lines of a log.
        for letter in self.text.chars() {
            match letter.is_control() {
                true => write!(f, "{}", letter.escape_debug())?,
                false => write!(f, "{letter}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Mistake {}

impl Position {
    fn new(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Reads the text of a configuration file.
///
/// # Errors
/// If it can't be read, or has more than `bytes_max` bytes.
pub fn read(file: &Path, bytes_max: u64) -> anyhow::Result<String> {
    let name = file.display();
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(bytes_max + 1).read_to_string(&mut text));
    let bytes = read.with_context(|| format!("could not read '{name}'"))?;
    anyhow::ensure!(
        bytes as u64 <= bytes_max,
        "'{name}' is too large: expected {bytes_max} bytes at most"
    );
    Ok(text)
}

/// Makes a mistake of a number out of range.
///
/// # Errors
/// If it is.
pub fn within(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), Mistake> {
    ensure((min..=max).contains(&value), name, || {
        format!("'{name}': expected {min} to {max}, found {value}")
    })
}

/// Makes a mistake in the value of a key, unless something holds.
///
/// # Errors
/// If it doesn't.
pub fn ensure(
    holds: bool,
    key: &'static str,
    text: impl FnOnce() -> String,
) -> Result<(), Mistake> {
    if holds {
        return Ok(());
    }
    Err(Mistake::at(key, text()))
}

/// Returns where a value begins, or else the table or list in which it is missing. A key that a
/// route doesn't have is the file's, if that has it.
fn offset(file: &DeTable<'_>, path: &[Step]) -> Option<usize> {
    let mut table = Some(file);
    let mut list = None;
    let mut offset = None;
    for step in path {
        let found = match *step {
            Step::Key(key) => table
                .and_then(|table| table.get(key))
                .or_else(|| file.get(key)),
            Step::Item(index) => list.and_then(|list: &toml::de::DeArray<'_>| list.get(index)),
        };
        let Some(found) = found else {
            break;
        };
        offset = Some(found.span().start);
        (table, list) = match found.get_ref() {
            DeValue::Table(table) => (Some(table), None),
            DeValue::Array(list) => (None, Some(list)),
            _ => (None, None),
        };
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_or_what_lacks_them() {
        let text = "# über\ntarget_port = 9\nbuffer = [1, 2]\n[[routes]]\nname = 'a'\n\n\
                    [[routes]]\nname = 'b'\ntargets = [\n  'x:1',\n  'y'\n]\n\
                    [routes.allow]\n'ü' = 1 # wide\nports = []\n";
        let at = Mistake::at;
        for (mistake, said) in [
            (at("target_port", "t"), "2:15: t"),
            (at("buffer", "t").in_item(1), "3:14: t"),
            (at("max_connections", "t"), "t"),
            (
                at("name", "t").in_entry("routes", 0, "route 'a'"),
                "5:8: route 'a': t",
            ),
            (
                at("name", "t").in_entry("routes", 1, "route 'b'"),
                "8:8: route 'b': t",
            ),
            (
                at("host", "t").in_entry("routes", 1, "route 'b'"),
                "7:1: route 'b': t",
            ),
            (
                at("target_port", "t").in_entry("routes", 1, "route 'b'"),
                "2:15: route 'b': t",
            ),
            (
                at("targets", "t")
                    .in_item(1)
                    .in_entry("routes", 1, "route 'b'"),
                "11:3: route 'b': t",
            ),
            (
                at("ports", "t")
                    .in_table("allow")
                    .in_entry("routes", 1, "route 'b'"),
                "15:9: route 'b': 'allow': t",
            ),
            (at("target_port", "t").outside(), "t"),
        ] {
            assert_eq!(mistake.found_in(text).to_string(), said);
        }
    }

    #[test]
    fn positions_count_letters() {
        for (text, offset, line, column) in [
            ("", 0, 1, 1),
            ("ab", 2, 1, 3),
            ("ü = 1", 5, 1, 5),
            ("a\r\nb\n", 3, 2, 1),
            ("a\n", 2, 2, 1),
            ("a\n", 9, 2, 1),
        ] {
            assert_eq!(Position::new(text, offset), Position { line, column });
        }
    }

    #[test]
    fn a_mistake_is_one_line() {
        let mistake = Mistake::at("name", "'a\nb\u{1b}[0m'");
        assert_eq!(mistake.to_string(), "'a\\nb\\u{1b}[0m'");
    }
}
