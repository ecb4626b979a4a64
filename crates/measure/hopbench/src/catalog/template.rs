//! Text with places to fill in, as in path files: `--listen=127.0.0.1:{{port:front}}`.
//!
//! Places have double braces because configuration files of other programs are full of single ones.
//! Two braces that are meant as such are written twice: `{{{{` is the text `{{`.

use std::{
    collections::BTreeMap,
    fmt, mem,
    path::{Path, PathBuf},
};

use anyhow::bail;
use serde::Deserialize;

use super::{similar::nearest, tls_file::TlsFile};
use crate::process::as_text;

/// A parsed text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Place(Place),
    Text(String),
}

/// A place to fill in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The file of a program of this workspace.
    Bin(String),
    /// The trial's directory.
    Dir,
    /// The location of a file that the path writes.
    File(String),
    /// A value that the file of a path or the command line gives.
    Parameter(String),
    /// A free TCP port, the same one wherever the name recurs in a trial.
    Port(String),
    /// The file of an installed program.
    Program(String),
    /// A Unix socket in the trial's directory.
    Socket(String),
    /// A certificate or a key of the run, in the trial's directory.
    Tls(TlsFile),
}

/// Fills in places for one trial.
pub(crate) trait Fill {
    fn bin(&mut self, name: &str) -> anyhow::Result<PathBuf>;
    fn directory(&mut self) -> &Path;
    fn port(&mut self, name: &str) -> anyhow::Result<u16>;
    fn program(&mut self, name: &str) -> anyhow::Result<PathBuf>;

    /// Only a path in a trial has certificates.
    fn tls(&mut self, file: TlsFile) -> anyhow::Result<PathBuf> {
        bail!(
            "'{}': expected in a 'command', in 'env' or in a [[file]] of a path",
            Place::Tls(file)
        )
    }
}

/// Braces that a place begins with.
pub(super) const OPEN: &str = "{{";

/// Braces that stand for [`OPEN`] as a text.
const LITERAL: &str = "{{{{";

const KINDS: [&str; 8] = [
    "bin",
    "dir",
    "file",
    "parameter",
    "port",
    "program",
    "socket",
    "tls",
];

impl Template {
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(place) => Some(place),
            Part::Text(_) => None,
        })
    }

    /// Returns the place that the text begins with, if it begins with one.
    pub(crate) fn first_place(&self) -> Option<&Place> {
        match self.parts.first() {
            Some(Part::Place(place)) => Some(place),
            _ => None,
        }
    }

    /// Returns whether the text begins with this.
    pub(crate) fn begins_with(&self, beginning: &str) -> bool {
        matches!(self.parts.first(), Some(Part::Text(text)) if text.starts_with(beginning))
    }

    /// Returns whether the text begins with a scheme, such as `http://`.
    pub(crate) fn begins_with_scheme(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Text(text)) if text.contains("://"))
    }

    /// Returns the rest of a text that begins with this.
    pub(crate) fn without_beginning(&self, beginning: &str) -> Option<Self> {
        let Some(Part::Text(text)) = self.parts.first() else {
            return None;
        };
        let rest = text.strip_prefix(beginning)?.to_owned();
        let mut parts = self.parts.clone();
        match rest.is_empty() && parts.len() > 1 {
            true => drop(parts.remove(0)),
            false => parts[0] = Part::Text(rest),
        }
        Some(Self { parts })
    }

    /// Returns the names of its parameters.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.places().filter_map(|place| match place {
            Place::Parameter(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Puts values in the place of parameters. A parameter without a value is left.
    pub(super) fn fill_in_parameters(&mut self, values: &BTreeMap<String, String>) {
        let mut parts: Vec<Part> = Vec::new();
        for part in mem::take(&mut self.parts) {
            let part = match part {
                Part::Place(Place::Parameter(name)) => match values.get(&name) {
                    Some(value) => Part::Text(value.clone()),
                    None => Part::Place(Place::Parameter(name)),
                },
                part => part,
            };
            // What has no places is one part, and no part but that is empty.
            match (parts.last_mut(), part) {
                (Some(Part::Text(before)), Part::Text(text)) => *before += &text,
                (Some(_), Part::Text(text)) if text.is_empty() => {}
                (_, part) => parts.push(part),
            }
        }
        self.parts = parts;
    }

    /// Returns the names of the ports in it.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &str> {
        self.places().filter_map(|place| match place {
            Place::Port(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Returns whether a place has its value only in a trial.
    pub(crate) fn needs_trial(&self) -> bool {
        let is_known = |place: &Place| matches!(place, Place::Bin(_) | Place::Program(_));
        !self.places().all(is_known)
    }

    /// Returns the whole text, if it has no places.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the text with all places filled in.
    pub(crate) fn fill(&self, fill: &mut dyn Fill) -> anyhow::Result<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text += part,
                Part::Place(place) => text += &place.value(fill)?,
            }
        }
        Ok(text)
    }
}

/// Writes the template as it stands in a file.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace(OPEN, LITERAL)),
            Part::Place(place) => place.fmt(f),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bin(name) => write!(f, "{{{{bin:{name}}}}}"),
            Self::Dir => f.write_str("{{dir}}"),
            Self::File(name) => write!(f, "{{{{file:{name}}}}}"),
            Self::Parameter(name) => write!(f, "{{{{parameter:{name}}}}}"),
            Self::Port(name) => write!(f, "{{{{port:{name}}}}}"),
            Self::Program(name) => write!(f, "{{{{program:{name}}}}}"),
            Self::Socket(name) => write!(f, "{{{{socket:{name}}}}}"),
            Self::Tls(file) => write!(f, "{{{{tls:{}}}}}", file.name()),
        }
    }
}

impl Place {
    fn value(&self, fill: &mut dyn Fill) -> anyhow::Result<String> {
        match self {
            Self::Bin(name) => as_text(&fill.bin(name)?),
            Self::Dir => as_text(fill.directory()),
            Self::File(name) | Self::Socket(name) => as_text(&fill.directory().join(name)),
            // In path files, these are filled in when the file is read.
            Self::Parameter(_) => bail!("'{self}': only the file of a path has parameters"),
            Self::Port(name) => Ok(fill.port(name)?.to_string()),
            Self::Program(name) => as_text(&fill.program(name)?),
            Self::Tls(file) => as_text(&fill.tls(*file)?),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let named = || match name {
            "" => Err(format!(
                "'{{{{{text}}}}}': expected a name, as in '{{{{{kind}:front}}}}'"
            )),
            name if name.contains(['/', ' ']) => {
                let hint = match kind {
                    "program" => "; if it is not on PATH, write only its full path",
                    _ => "",
                };
                Err(format!(
                    "'{{{{{text}}}}}': expected a name without '/' or spaces{hint}"
                ))
            }
            name => Ok(name.to_owned()),
        };
        match kind {
            "bin" => named().map(Self::Bin),
            "dir" => Ok(Self::Dir),
            "file" => named().map(Self::File),
            "parameter" => named().map(Self::Parameter),
            "port" => named().map(Self::Port),
            "program" => named().map(Self::Program),
            "socket" => named().map(Self::Socket),
            "tls" => tls_file(text, name).map(Self::Tls),
            _ => Err(format!(
                "'{{{{{text}}}}}': unknown place '{kind}', expected one of {}{}; for the text \
                 '{OPEN}', write '{LITERAL}'",
                KINDS.map(|kind| format!("'{kind}'")).join(", "),
                meant(text),
            )),
        }
    }
}

/// Places that nearly every path has.
const PORTS: [&str; 2] = ["{{port:front}}", "{{port:origin}}"];

/// Returns a hint for an unknown place: the port with this name, or a kind with a similar one.
fn meant(text: &str) -> String {
    let port = format!("{OPEN}port:{text}}}}}");
    if PORTS.contains(&port.as_str()) {
        return format!(" (did you mean '{port}'?)");
    }
    let (kind, _) = text.split_once(':').unwrap_or((text, ""));
    nearest(kind, KINDS)
}

fn tls_file(text: &str, name: &str) -> Result<TlsFile, String> {
    let found = TlsFile::ALL.into_iter().find(|file| file.name() == name);
    found.ok_or_else(|| {
        let names = TlsFile::ALL.map(TlsFile::name);
        format!(
            "'{{{{{text}}}}}': expected one of {}{}",
            names.map(|name| format!("'{{{{tls:{name}}}}}'")).join(", "),
            nearest(name, names)
        )
    })
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once(OPEN) {
            literal += before;
            if let Some(behind) = after.strip_prefix(OPEN) {
                literal += OPEN;
                rest = behind;
                continue;
            }
            let Some((place, behind)) = after.split_once("}}") else {
                return Err(format!(
                    "'{OPEN}{after}': expected '}}}}' after '{OPEN}'; for the text '{OPEN}', write \
                     '{LITERAL}'"
                ));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(mem::take(&mut literal)));
            }
            parts.push(Part::Place(Place::parse(place.trim())?));
            rest = behind;
        }
        // A text without places is one part, even if it is empty.
        literal += rest;
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }
}

hopbench_analysis::has_schema_of! {
    Template => String;
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Fill for Fixed {
        fn bin(&mut self, name: &str) -> anyhow::Result<PathBuf> {
            Ok(Path::new("/target").join(name))
        }

        fn directory(&mut self) -> &Path {
            Path::new("/trial")
        }

        fn port(&mut self, _name: &str) -> anyhow::Result<u16> {
            Ok(4000)
        }

        fn program(&mut self, name: &str) -> anyhow::Result<PathBuf> {
            bail!("'{name}' is not installed")
        }
    }

    fn fill(text: &str) -> String {
        let template = Template::try_from(text.to_owned()).expect(text);
        template.fill(&mut Fixed).expect("nothing is missing")
    }

    #[test]
    fn places_are_filled_in_and_single_braces_left_alone() {
        assert_eq!(
            fill("{{bin:host}} --addr={{socket:a}}"),
            "/target/host --addr=/trial/a"
        );
        assert_eq!(
            fill("server { listen {{ port:front }}; }"),
            "server { listen 4000; }"
        );
        assert_eq!(fill("{{dir}}/x {{file:a.cfg}}"), "/trial/x /trial/a.cfg");
    }

    #[test]
    fn parameters_become_texts() {
        let values: BTreeMap<String, String> = [("a", "1"), ("empty", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        for (text, expected, is_text) in [
            ("{{parameter:a}}", "1", true),
            ("{{parameter:empty}}", "", true),
            ("x{{parameter:empty}}y{{parameter:a}}", "xy1", true),
            ("{{port:p}}{{parameter:empty}}", "{{port:p}}", false),
            ("{{parameter:empty}}{{port:p}}", "{{port:p}}", false),
            ("{{parameter:b}}", "{{parameter:b}}", false),
        ] {
            let mut template = Template::try_from(text.to_owned()).expect(text);
            template.fill_in_parameters(&values);
            assert_eq!(template.to_string(), expected);
            assert_eq!(template.as_text().is_some(), is_text, "{text}");
        }
        let template = Template::try_from("{{parameter:b}}".to_owned()).expect("well-formed");
        let message = template.fill(&mut Fixed).unwrap_err().to_string();
        assert!(message.contains("only the file of a path"), "{message}");
    }

    #[test]
    fn braces_that_are_written_twice_are_a_text() {
        let text = "a {{{{ .Host }} b {{port:x}} {{{{{{{{";
        assert_eq!(fill(text), "a {{ .Host }} b 4000 {{{{");
        let template = Template::try_from(text.to_owned()).expect("well-formed");
        assert_eq!(template.to_string(), text);
        let whole = Template::try_from("{{{{x}}".to_owned()).expect("well-formed");
        assert_eq!(whole.as_text(), Some("{{x}}"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("{{prot:front}}", "did you mean 'port'?"),
            ("{{front}}", "'tls' (did you mean '{{port:front}}'?)"),
            ("{{ origin }}", "(did you mean '{{port:origin}}'?)"),
            ("{{hostname}}", "'tls'; for the text '{{'"),
            ("{{port}}", "expected a name, as in '{{port:front}}'"),
            ("{{port:front", "expected '}}'"),
            ("{{ .Host }}", "for the text '{{', write '{{{{'"),
            ("{{socket:../x}}", "without '/'"),
            ("{{tls:cert}}", "expected one of '{{tls:ca}}', '{{tls:cer"),
            ("{{tls:certificat}}", "(did you mean 'certificate'?)"),
            ("{{tls}}", "'{{tls:pem}}'"),
        ] {
            let message = Template::try_from(text.to_owned()).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
