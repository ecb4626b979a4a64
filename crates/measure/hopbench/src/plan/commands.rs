//! Commands of a path that run outside of a trial: what its reference describes, and versions.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context, bail};

use crate::{
    catalog::{Fill, PathDefinition, most_similar},
    mistake::Mistake,
    plan::{toolbox::Toolbox, work::Description},
    process::{Command, capture, capture_within},
};

/// Maximum number of targets in one command line, whose length the system limits.
const DESCRIBED_AT_ONCE: usize = 1_000;

/// Asks the reference how it answers these targets.
pub(super) fn describe_each(
    toolbox: &Toolbox,
    reference: &PathDefinition,
    targets: &[&str],
) -> anyhow::Result<BTreeMap<String, Description>> {
    let mut described = BTreeMap::new();
    for targets in targets.chunks(DESCRIBED_AT_ONCE) {
        let entries = describe(toolbox, reference, Some(targets))?.into_iter();
        described.extend(entries.map(|entry| (entry.target.clone(), entry)));
    }
    Ok(described)
}

/// Runs the reference's describing command.
pub(super) fn describe(
    toolbox: &Toolbox,
    reference: &PathDefinition,
    targets: Option<&[&str]>,
) -> anyhow::Result<Vec<Description>> {
    let name = &reference.name;
    let Some(describe) = &reference.describe else {
        bail!(
            "path '{name}' is a reference: expected 'describe', a command that prints what its \
             endpoints answer"
        );
    };
    let mut fill = OnlyPrograms(toolbox);
    let mut words = Vec::new();
    for template in describe {
        words.push(template.fill(&mut fill)?);
    }
    words.extend(
        targets
            .into_iter()
            .flatten()
            .map(|target| (*target).to_owned()),
    );
    let mut words = words.into_iter();
    let program = words.next().context("'describe': expected a program")?;
    let output = capture(&Command {
        program: program.into(),
        arguments: words.collect(),
        stops_with_stdin: true,
        ..Command::default()
    });
    // The command runs without targets, so what it says is about the targets.
    let output = output.map_err(|error| match targets {
        Some(targets) => {
            let said = last_line(&error);
            let nearest = nearest_target(toolbox, reference, targets, &said);
            Mistake(said + &nearest).into()
        }
        None => error,
    })?;
    serde_json::from_str(&output)
        .with_context(|| format!("path '{name}': 'describe' printed something unexpected"))
}

/// Returns a hint for the target that a describing command complains about, if it is misspelt.
fn nearest_target(
    toolbox: &Toolbox,
    reference: &PathDefinition,
    targets: &[&str],
    said: &str,
) -> String {
    // Without an answer there is only no hint.
    let known = describe(toolbox, reference, None).unwrap_or_default();
    let first = |target: &str| target.split(['/', '?']).nth(1).map(str::to_owned);
    let is_unknown = |target: &&&str| {
        let begins_alike = known.iter().any(|it| first(&it.target) == first(target));
        said.contains(&format!("'{target}'")) && !begins_alike
    };
    let unknown = targets.iter().find(is_unknown);
    let known = known.iter().map(|it| it.target.as_str());
    let nearest = unknown.and_then(|target| most_similar(target, known));
    nearest.map_or_else(String::new, |nearest| {
        format!(" (did you mean '{nearest}'?)")
    })
}

/// Returns what a program said last, without how it was run.
fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().last().unwrap_or_default();
    let said = line.rsplit_once("error: ").map_or(line, |(_, said)| said);
    said.to_owned()
}

/// Fills in commands outside of a trial, where only programs can be filled in.
struct OnlyPrograms<'a>(&'a Toolbox);

impl Fill for OnlyPrograms<'_> {
    fn bin(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        self.0.bin(name)
    }

    fn directory(&mut self) -> &std::path::Path {
        std::path::Path::new(".")
    }

    fn port(&mut self, name: &str) -> anyhow::Result<u16> {
        bail!("'{{{{port:{name}}}}}': there are no ports outside a trial")
    }

    fn program(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        self.0
            .program(name)
            .with_context(|| format!("'{name}' is not installed"))
    }
}

/// The versions of a path's programs, by process.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// The line that holds the version.
    pub(crate) lines: BTreeMap<String, String>,
    /// Everything, up to [`VERSION_BYTES_MAX`], of those that print more than that line.
    pub(crate) outputs: BTreeMap<String, String>,
}

/// Maximum length of what is kept of a program's version, in bytes. HAProxy prints 5 KB.
const VERSION_BYTES_MAX: usize = 8 * 1024;

/// Returns the receipts of a path's programs.
pub(crate) fn receipts(toolbox: &Toolbox, path: &PathDefinition) -> anyhow::Result<Receipts> {
    let mut fill = OnlyPrograms(toolbox);
    let mut receipts = Receipts::default();
    for process in &path.processes {
        let words: Vec<String> = process
            .version
            .iter()
            .map(|template| template.fill(&mut fill))
            .collect::<anyhow::Result<_>>()?;
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default().into();
        // In the surroundings of the process, as far as they are there outside of a trial.
        let environment = process.env.iter().filter(|(_, value)| !value.needs_trial());
        let environment = environment
            .map(|(name, value)| Ok((name.into(), value.fill(&mut fill)?.into())))
            .collect::<anyhow::Result<_>>()?;
        let cwd = process.cwd.as_ref();
        let cwd = cwd.map(|cwd| cwd.fill(&mut fill)).transpose()?;
        let command = Command {
            program,
            arguments: words.collect(),
            works_in: cwd.map(PathBuf::from),
            environment,
            stops_with_stdin: true,
            ..Command::default()
        };
        let version = capture(&command).with_context(|| {
            format!(
                "path '{}': process '{}' did not report its version",
                path.name, process.name
            )
        })?;
        let output = version[..version.floor_char_boundary(VERSION_BYTES_MAX)].trim();
        let line = version_line(output);
        if line != output {
            let output = output.to_owned();
            receipts.outputs.insert(process.name.clone(), output);
        }
        receipts.lines.insert(process.name.clone(), line.to_owned());
    }
    Ok(receipts)
}

/// Options at which programs print their versions, the most usual first.
const VERSION_FLAGS: [&str; 5] = ["--version", "-V", "-v", "-version", "version"];

/// Time that a program may take at each of them. One that doesn't know it may begin to serve.
const VERSION_FLAG_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the option at which a program prints its version, if it is one of the usual.
pub(crate) fn version_flag(surroundings: &Command) -> Option<&'static str> {
    VERSION_FLAGS.into_iter().find(|flag| {
        let command = Command {
            arguments: vec![(*flag).to_owned()],
            ..surroundings.clone()
        };
        let printed = capture_within(&command, VERSION_FLAG_TIMEOUT);
        // Another flag may do, and a program that can't be started is noticed later.
        let has_digit = |text: &str| text.contains(|it: char| it.is_ascii_digit());
        let is_usual = *flag == VERSION_FLAGS[0];
        printed.is_ok_and(|it| has_number(&it) || is_usual && has_digit(&it))
    })
}

/// Returns the line that holds the version. Some programs print who wrote them, or what they
/// initialise, before it.
fn version_line(output: &str) -> &str {
    let mut lines = output.lines().map(str::trim);
    let first = lines.clone().next().unwrap_or_default();
    lines.find(|line| has_number(line)).unwrap_or(first)
}

/// Returns whether a text has a number with a point, such as `1.8`.
fn has_number(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit();
    let mut threes = text.as_bytes().windows(3);
    threes.any(|three| is_digit(three[0]) && three[1] == b'.' && is_digit(three[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_version_is_found() {
        for (output, line) in [
            (
                "HAProxy version 2.8.5-1 2024/01/01\nStatus: x 1.2",
                "HAProxy version 2.8.5-1 2024/01/01",
            ),
            (
                "socat by Gerhard Rieger and contributors - see www.dest-unreach.org\n\
                 socat version 1.8.0.0 on 27 Jan 2024\n   running on Linux version #1, release 6.8",
                "socat version 1.8.0.0 on 27 Jan 2024",
            ),
            (
                "Initializing inetd mode configuration\nstunnel 5.72 on x86_64-pc-linux-gnu\n\
                 Compiled with OpenSSL 3.0.13",
                "stunnel 5.72 on x86_64-pc-linux-gnu",
            ),
            ("v1\nmore", "v1"),
            ("", ""),
        ] {
            assert_eq!(version_line(output), line);
        }
    }
}
