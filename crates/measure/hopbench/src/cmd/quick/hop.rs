//! A hop from one command line: its words, and the path file that says the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    path::{self, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use hopbench_analysis::record::{FrontProtocol, Protocol};
use toml::Value;

use super::wrapper::{program_behind, variable};
use crate::{
    catalog::{self, NAME_BYTES_MAX, Template, most_similar},
    mistake::Mistake,
    plan::{commands::version_flag, toolbox::Toolbox, variants::Parameters},
    process::{Command, as_text},
};

/// A hop before the origin.
#[derive(Debug)]
pub(super) struct Hop {
    /// Name of its path.
    pub(super) name: String,
    /// Program and arguments, with places to fill in.
    words: Vec<String>,
    /// Index of the program in the words, behind `env`, `nice` and the like.
    program: usize,
    /// The program's first argument, if it is a file: then the program is its interpreter.
    script: Option<String>,
    /// Variables that were written before the program.
    variables: Vec<(String, String)>,
    /// Values of its parameters.
    parameters: BTreeMap<String, String>,
    /// Directory in which it works: that of whoever typed the command.
    directory: PathBuf,
}

/// Place of the port at which clients connect.
const FRONT: &str = "{{port:front}}";

/// Place of the port at which the origin listens.
const ORIGIN: &str = "{{port:origin}}";

/// Address at which clients connect, as it stands in [`FRONT_AND_ORIGIN`].
const PLAIN_FRONT: &str = "127.0.0.1:{{port:front}}";

/// Program that tells two files apart.
const DIGEST: &str = "{{program:sha256sum}}";

const EXAMPLE: &str = "hopbench quick 'socat TCP-LISTEN:{{port:front}},fork,backlog=512,nodelay \
                       TCP:127.0.0.1:{{port:origin}},nodelay'";

/// Words by which a shell joins commands, or sends their output elsewhere.
const OF_SHELLS: [&str; 8] = ["|", "||", "&", "&&", ";", "<", ">", ">>"];

/// Beginning of the places that are programs.
const PLACES_OF_PROGRAMS: [&str; 2] = ["{{program:", "{{bin:"];

/// Everything of the path file but for its summary and what was typed.
const FRONT_AND_ORIGIN: &str = include_str!("../../../templates/quick.toml");

impl Hop {
    /// Splits a command line as a shell would, and checks that it can be a hop.
    pub(super) fn parse(
        line: &str,
        name: Option<&str>,
        given: &Parameters,
    ) -> anyhow::Result<Self> {
        let Some(mut words) = shlex::split(line) else {
            let message = format!("'{line}': expected an end of every quote");
            return Err(Mistake(message).into());
        };
        let is_variable = |word: &String| variable(word).is_some();
        let program = words.iter().position(|word| !is_variable(word));
        let variables = words.drain(..program.unwrap_or(words.len()));
        let variables: Vec<(String, String)> =
            variables.filter_map(|word| variable(&word)).collect();
        check_words(&words)?;
        let values = variables.iter().map(|(_, value)| value);
        let templates = words.iter().chain(values).cloned().map(Template::try_from);
        let templates: Vec<Template> = templates.collect::<Result<_, _>>().map_err(Mistake)?;
        check_places(&templates)?;
        let parameters = parameters(&templates, given)?;
        let directory = env::current_dir().context("there is no working directory")?;
        let program = program_behind(&words);
        let script = words.get(program + 1);
        let script = script.filter(|word| directory.join(word).is_file());
        let script = script.cloned();
        let script = script.map(|script| path::absolute(directory.join(script)));
        let script = script.transpose()?.as_deref().map(as_text).transpose()?;
        let name = match (name, &script) {
            (Some(name), _) => name.to_owned(),
            (None, Some(script)) => name_of(script),
            (None, None) => name_of(&words[program]),
        };
        for index in BTreeSet::from([0, program]) {
            words[index] = place_of_program(&words[index])?;
        }
        Ok(Self {
            name,
            words,
            program,
            script,
            variables,
            parameters,
            directory,
        })
    }

    /// Returns the text of the path file. Runs the program, to find out how it prints its version.
    pub(super) fn path_file(
        &self,
        toolbox: &Toolbox,
        asked: FrontProtocol,
    ) -> anyhow::Result<String> {
        let text = |text: &str| Value::from(text);
        let version = self.version(toolbox)?;
        let summary = format!("{} in front of the origin.", self.name);
        let scheme = if asked.tls { "https://" } else { "" };
        let front = FRONT_AND_ORIGIN.replacen(PLAIN_FRONT, &format!("{scheme}{PLAIN_FRONT}"), 1);
        let protocol = match asked.protocol {
            Protocol::Http1 => String::new(),
            other => format!("protocol = {}\n", text(other.name())),
        };
        let mut file = format!("summary = {}\n{protocol}{front}", text(&summary));
        let words = self.words.iter().map(|word| text(word));
        let mut fields = vec![
            ("name", text(&self.name)),
            ("command", Value::Array(words.collect())),
            (
                "version",
                Value::Array(version.iter().map(|it| text(it)).collect()),
            ),
            ("cwd", text(&as_text(&self.directory)?)),
        ];
        if !self.variables.is_empty() {
            let variables = self.variables.iter();
            let variables = variables.map(|(name, value)| (name.clone(), text(value)));
            fields.push(("env", Value::Table(variables.collect())));
        }
        for (name, value) in fields {
            file += &format!("{name} = {value}\n");
        }
        if !self.parameters.is_empty() {
            file +=
                "\n# Values for '{{parameter:NAME}}', unless '--set' gives others.\n[parameters]\n";
        }
        for (name, value) in &self.parameters {
            file += &format!("{} = {}\n", text(name), text(value));
        }
        Ok(file)
    }

    /// Returns a command that tells which program was measured: by its version or, if it prints
    /// none, by the digest of its file. The version of an interpreter says nothing about a script.
    fn version(&self, toolbox: &Toolbox) -> anyhow::Result<Vec<String>> {
        if let Some(script) = &self.script {
            return Ok(vec![DIGEST.to_owned(), script.clone()]);
        }
        let program = &self.words[self.program];
        let place = PLACES_OF_PROGRAMS.map(|place| {
            let name = program.strip_prefix(place)?;
            name.strip_suffix("}}")
        });
        let file = match place {
            [Some(name), _] => match toolbox.program(name) {
                Some(file) => file,
                None => {
                    bail!("'{name}' is not installed; if it is not on PATH, write its full path")
                }
            },
            [_, Some(name)] => toolbox.bin(name)?,
            [None, None] => PathBuf::from(program),
        };
        let variables = self.variables.iter();
        let variables = variables.filter(|(_, value)| !value.contains("{{"));
        let environment = variables.map(|(name, value)| (name.into(), value.into()));
        let surroundings = Command {
            program: file,
            works_in: Some(self.directory.clone()),
            environment: environment.collect::<Vec<(OsString, OsString)>>(),
            ..Command::default()
        };
        Ok(match version_flag(&surroundings) {
            Some(flag) => vec![program.clone(), flag.to_owned()],
            None => vec![DIGEST.to_owned(), program.clone()],
        })
    }
}

/// Returns a program as it stands in a path file. The hop's own directory is another, and so is the
/// directory of a later run.
fn place_of_program(program: &str) -> anyhow::Result<String> {
    Ok(match program {
        place if place.starts_with("{{") => place.to_owned(),
        file if file.contains('/') => as_text(&path::absolute(file)?)?,
        mixed if mixed.contains("{{") => mixed.to_owned(),
        name => format!("{{{{program:{name}}}}}"),
    })
}

fn check_words(words: &[String]) -> Result<(), Mistake> {
    if words.first().is_none_or(String::is_empty) {
        let message = format!("expected a command line, such as {EXAMPLE}");
        return Err(Mistake(message));
    }
    let is_of_shell = |word: &&String| OF_SHELLS.contains(&word.as_str());
    // An argument may begin so, but no program does.
    let program = words.get(program_behind(words));
    let is_expanded = |word: &&String| word.starts_with("~/") || word.starts_with('$');
    let program = program.filter(is_expanded);
    match words.iter().find(is_of_shell).or(program) {
        None => Ok(()),
        Some(word) => Err(Mistake(format!(
            "'{word}': no shell reads the command; to have one, write sh -c \"…\""
        ))),
    }
}

/// Checks that both ports are somewhere in the command.
fn check_places(templates: &[Template]) -> Result<(), Mistake> {
    let ports = templates.iter().flat_map(Template::ports);
    let ports: Vec<String> = ports.map(|port| format!("{{{{port:{port}}}}}")).collect();
    let missing = [
        (FRONT, "where clients connect", "--listen"),
        (ORIGIN, "where the hop connects to", "--to"),
    ];
    let is_missing = |place: &str| !ports.iter().any(|port| port == place);
    let missing = missing.iter().filter(|(place, ..)| is_missing(place));
    let told: Vec<String> = missing
        .map(|(place, what, option)| {
            let others = ports.iter().map(String::as_str);
            let others = others.filter(|port| ![FRONT, ORIGIN].contains(port));
            let hint = match most_similar(place, others) {
                Some(meant) => format!("write it instead of '{meant}'"),
                None => format!("write it as the port, as in '{option}=127.0.0.1:{place}'"),
            };
            format!("the command has no '{place}', {what}: {hint}")
        })
        .collect();
    match told.len() {
        0 => Ok(()),
        1 => Err(Mistake(told.concat())),
        _ => Err(Mistake(format!(
            "{}; for example, {EXAMPLE}; a hop with a file of its own needs a path file: \
             'hopbench new path my-hop'",
            told.join("; ")
        ))),
    }
}

/// Returns the values of all parameters in a command.
fn parameters(
    templates: &[Template],
    given: &Parameters,
) -> Result<BTreeMap<String, String>, Mistake> {
    let names = templates.iter().flat_map(Template::parameters);
    let value = |name: &str| match given.first(name) {
        Some(value) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Mistake(format!(
            "'{{{{parameter:{name}}}}}' has no value; add '--set {name}=VALUE', or \
             '--sweep {name}=VALUE,VALUE'"
        ))),
    };
    names.map(value).collect()
}

/// Returns the name of a program, without what paths may not have in their names.
fn name_of(program: &str) -> String {
    let place = PLACES_OF_PROGRAMS.into_iter();
    let mut named = place.filter_map(|place| program.strip_prefix(place)?.strip_suffix("}}"));
    let program = named.next().unwrap_or(program);
    let file = Path::new(program).file_name().unwrap_or_default();
    let file = file.to_string_lossy();
    let plain = |it: char| match catalog::is_plain_name(&it.to_string()) && it != ' ' {
        true => it,
        false => '-',
    };
    let mut name: String = file.trim_start_matches('.').chars().map(plain).collect();
    name.truncate(name.floor_char_boundary(NAME_BYTES_MAX));
    match name.is_empty() {
        true => "my-hop".to_owned(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_would() {
        let line = "A='1 2' B=\"x={{port:front}}\" ./bin/my.relay --to '{{port:origin}}' \"a b\"";
        let hop = Hop::parse(line, None, &Parameters::default()).expect("a hop");
        assert_eq!(hop.name, "my.relay");
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [variable("A", "1 2"), variable("B", "x={{port:front}}")];
        assert_eq!(hop.variables, expected);
        let program = &hop.words[0];
        assert!(program.starts_with('/') && program.ends_with("bin/my.relay"));
        assert_eq!(hop.words[1..], ["--to", "{{port:origin}}", "a b"]);
    }

    #[test]
    fn what_wraps_a_program_is_not_the_program() {
        let line = "env A=b nice ./my.relay {{port:front}} {{port:origin}}";
        let hop = Hop::parse(line, None, &Parameters::default()).expect("a hop");
        assert_eq!(hop.name, "my.relay");
        assert_eq!(hop.words[..3], ["{{program:env}}", "A=b", "nice"]);
        assert!(hop.words[3].starts_with('/') && hop.words[3].ends_with("my.relay"));
        let line = "env A=b sh -c 'x {{port:front}} {{port:origin}}'";
        let hop = Hop::parse(line, None, &Parameters::default()).expect("a hop");
        let toolbox = Toolbox::new(None).expect("a directory");
        let file = hop
            .path_file(&toolbox, FrontProtocol::default())
            .expect("a shell");
        let path = catalog::PathDefinition::parse("mine", &file).expect(&file);
        let version = &path.processes.last().expect("two processes").version;
        assert!(
            version.iter().any(|it| it.to_string() == "{{program:sh}}"),
            "{file}"
        );
    }

    #[test]
    fn a_path_has_the_name_of_its_program() {
        for (program, name) in [
            ("socat", "socat"),
            ("{{program:socat}}", "socat"),
            ("{{bin:forwarder}}", "forwarder"),
            ("/opt/my proxy/run:1", "run-1"),
            ("./.hidden", "hidden"),
            ("/", "my-hop"),
        ] {
            assert_eq!(name_of(program), name);
        }
        assert_eq!(name_of(&"ö".repeat(300)).len(), NAME_BYTES_MAX);
    }

    #[test]
    fn a_command_that_is_no_hop_is_refused_with_what_to_write() {
        let (front, origin) = ("-l{{port:front}}", "-t{{port:origin}}");
        for (line, expected) in [
            (String::new(), "expected a command line, such as hopbench"),
            ("A=1".to_owned(), "expected a command line"),
            (format!("x '{front} {origin}"), "an end of every quote"),
            (format!("x {front} {origin} &"), "'&': no shell reads"),
            (format!("~/x {front} {origin}"), "'~/x': no shell reads"),
            (format!("env '$X' {front} {origin}"), "'$X': no shell reads"),
            (format!("x {front}"), "'{{port:origin}}', where the hop"),
            (format!("x {origin}"), "'--listen=127.0.0.1:{{port:front}}'"),
            (
                format!("x {front} {{{{port:orgin}}}}"),
                "write it instead of '{{port:orgin}}'",
            ),
            (format!("x {front} {{{{prot:origin}}}}"), "mean 'port'?"),
            ("x -l 80".to_owned(), "'hopbench new path my-hop'"),
        ] {
            let refused = Hop::parse(&line, None, &Parameters::default()).expect_err(&line);
            assert!(refused.is::<Mistake>(), "{refused}");
            assert!(refused.to_string().contains(expected), "{line}: {refused}");
        }
    }

    #[test]
    fn the_path_file_has_what_was_typed() {
        let line = "A='\"' sh -c 'exec x \"$A\" {{port:front}} {{port:origin}}' {{parameter:w}}";
        let mut given = Parameters::default();
        let refused = Hop::parse(line, None, &given).expect_err("no value");
        assert!(
            refused.to_string().contains("add '--set w=VALUE'"),
            "{refused}"
        );
        given.sweep.extend("w=1,2".parse());
        let hop = Hop::parse(line, Some("mine"), &given).expect("a hop");
        let toolbox = Toolbox::new(None).expect("a directory");
        let plain = FrontProtocol::default();
        let file = hop.path_file(&toolbox, plain).expect("a shell");
        let path = catalog::PathDefinition::parse("mine", &file).expect(&file);
        assert_eq!(path.front.protocol, plain);
        let process = path.processes.last().expect("two processes");
        let words: Vec<String> = process.command.iter().map(ToString::to_string).collect();
        let script = "exec x \"$A\" {{port:front}} {{port:origin}}";
        assert_eq!(words, ["{{program:sh}}", "-c", script, "1"]);
        assert_eq!(process.env["A"].to_string(), "\"");
        let here = env::current_dir().expect("a directory");
        let cwd = process.cwd.as_ref().expect("a directory");
        assert_eq!(cwd.to_string(), here.display().to_string());
    }

    #[test]
    fn the_path_file_says_how_the_hop_is_asked() {
        let line = "sh -c 'exec x {{tls:pem}}' {{port:front}} {{port:origin}}";
        let hop = Hop::parse(line, None, &Parameters::default()).expect("a hop");
        let toolbox = Toolbox::new(None).expect("a directory");
        for tls in [false, true] {
            for protocol in Protocol::ALL {
                let asked = FrontProtocol { tls, protocol };
                let file = hop.path_file(&toolbox, asked).expect("a shell");
                let path = catalog::PathDefinition::parse("mine", &file).expect(&file);
                assert_eq!(path.front.protocol, asked, "{file}");
            }
        }
    }
}
