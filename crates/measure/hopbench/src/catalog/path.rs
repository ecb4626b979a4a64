//! A path file: the processes between client and origin.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    address,
    counters::{self, Conservation, Counters, WireCounter},
    front::Front,
    limits::NAME_BYTES_MAX,
    parameters::{self, DefaultValue},
    read::from_text,
    request::{ExpectedAnswer, WireExpect},
    similar::is_slip,
    template::{Place, Template},
    wiring,
};

/// A validated path.
#[derive(Clone, Debug)]
pub(crate) struct PathDefinition {
    pub(crate) name: String,
    /// Text of the file, which tells apart two paths with the same name.
    pub(crate) text: String,
    /// Value of each parameter, which tells apart two paths with the same text.
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) summary: String,
    pub(crate) analysis: String,
    pub(crate) tags: Vec<String>,
    /// Address to which the client connects, and how it asks.
    pub(crate) front: Front,
    /// Added to the query of every request.
    pub(crate) query: Option<Template>,
    /// Target that is requested until the answer has status 200.
    pub(crate) ready: String,
    /// Time that the path may take until it answers that.
    pub(crate) start_timeout: Duration,
    /// A command that prints, as JSON, the answers of the endpoints given as arguments.
    pub(crate) describe: Option<Vec<Template>>,
    pub(crate) processes: Vec<ProcessDefinition>,
    pub(crate) files: Vec<FileDefinition>,
    /// Counters of the processes.
    pub(crate) counters: Counters,
    /// Correct answers that differ from those of other paths, by the name of the request.
    pub(crate) expect: BTreeMap<String, ExpectedAnswer>,
    /// System files that the path needs.
    pub(crate) requires_files: Vec<PathBuf>,
    /// How to install a program or a file that is missing.
    pub(crate) install: BTreeMap<String, String>,
}

/// One process of a path.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ProcessDefinition {
    /// Name in messages, and of the process's log.
    pub(crate) name: String,
    /// Label under which its CPU time is reported.
    pub(crate) role: String,
    /// Program and arguments.
    pub(crate) command: Vec<Template>,
    /// A command that prints the version of the program that is run.
    pub(crate) version: Vec<Template>,
    /// Variables of its environment, besides those that every process gets.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, Template>,
    /// Directory in which it works; by default the trial's.
    pub(crate) cwd: Option<Template>,
    /// Address at which it serves its counters.
    pub(crate) admin: Option<Template>,
    /// Whether it stops when its stdin ends; otherwise it is killed if hopbench dies.
    #[serde(default)]
    pub(crate) stops_with_stdin: bool,
    /// Whether its program takes the faults that a self-test injects, as arguments.
    #[serde(default)]
    pub(crate) takes_faults: bool,
    /// Roles of threads whose names begin with the key.
    #[serde(default)]
    pub(crate) thread_roles: BTreeMap<String, String>,
}

impl ProcessDefinition {
    /// Returns what the process is started with.
    fn texts(&self) -> impl Iterator<Item = &Template> {
        let texts = self.command.iter().chain(self.env.values());
        texts.chain(&self.cwd).chain(&self.admin)
    }
}

/// A file that is written before the processes start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct FileDefinition {
    /// Name, for '{{file:NAME}}'.
    pub(crate) name: String,
    /// Content, whose places are filled in.
    pub(crate) content: Template,
}

/// A path file as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Wire {
    /// Summary in one line.
    summary: String,
    /// How the path works and what to expect, for the report.
    #[serde(default)]
    analysis: String,
    /// Tags, by which '--path tag:NAME' selects paths.
    #[serde(default)]
    tags: Vec<String>,
    /// Address to which clients connect, such as '127.0.0.1:{{port:front}}'; over TLS with
    /// 'https://' before it.
    front: Template,
    /// Protocol by which clients ask: 'http1' (the default) or 'h2'.
    protocol: Option<Template>,
    /// Text that is added to the query of every request, such as 'key=1'.
    query: Option<Template>,
    /// Target that is requested at the front until the answer is 200.
    #[serde(default = "default_ready")]
    ready: String,
    /// Time that the path may take until it answers that, in milliseconds; 10,000 by default.
    start_timeout_ms: Option<u64>,
    /// Texts that the command line may change, for '{{parameter:NAME}}': their default values.
    #[serde(default)]
    parameters: BTreeMap<String, DefaultValue>,
    /// Command that prints, as JSON, the answers to the targets given as arguments. A reference
    /// needs it.
    describe: Option<Vec<Template>>,
    /// Name of a built-in set of counters.
    counter_set: Option<String>,
    /// Counters that reports show.
    #[serde(default)]
    counter: Vec<WireCounter>,
    /// Rules by which counters must cover the bodies that the client received.
    #[serde(default)]
    conservation: Vec<Conservation>,
    /// Processes, in the order in which they are started.
    process: Vec<ProcessDefinition>,
    /// Files that are written before the processes start.
    #[serde(default)]
    file: Vec<FileDefinition>,
    /// Correct answers that differ from those of other paths, by the name of the request.
    #[serde(default)]
    expect: BTreeMap<String, WireExpect>,
    /// System files without which the path is skipped.
    #[serde(default)]
    requires_files: Vec<PathBuf>,
    /// How to install a program or file that is missing.
    #[serde(default)]
    install: BTreeMap<String, String>,
}

impl Wire {
    /// Returns everything that may have places.
    fn templates(&mut self) -> Vec<&mut Template> {
        let mut templates = vec![&mut self.front];
        templates.extend(self.protocol.iter_mut().chain(&mut self.query));
        templates.extend(self.describe.iter_mut().flatten());
        for process in &mut self.process {
            templates.extend(process.command.iter_mut().chain(&mut process.version));
            templates.extend(process.env.values_mut());
            templates.extend(process.cwd.iter_mut().chain(&mut process.admin));
        }
        templates.extend(self.file.iter_mut().map(|file| &mut file.content));
        templates
    }
}

/// Milliseconds that a path may take until it answers, unless its file says otherwise.
const START_TIMEOUT_MS: u64 = 10_000;

/// Longest such time: ten minutes, for a program that reads a large model or data set first.
pub(crate) const START_TIMEOUT_MS_MAX: u64 = 600_000;

/// Beginning of the variables by which hopbench knows its processes.
const OWN_VARIABLES: &str = "HOPBENCH_";

/// Labels of the load generator's CPU time, and of that of all processes of a path together.
const RESERVED_ROLES: [&str; 2] = ["client", "server"];

/// Checks that files stay in their directory.
pub(super) fn check_names(files: &[FileDefinition]) -> Result<(), String> {
    let is_plain = |name: &str| super::is_plain_name(name) && !name.starts_with('.');
    match files.iter().find(|file| !is_plain(&file.name)) {
        None => Ok(()),
        Some(file) => Err(format!(
            "file '{}': 'name': expected letters, digits, spaces, '-', '_', '.' and '+'",
            file.name.escape_debug()
        )),
    }
}

impl PathDefinition {
    /// Parses the text of a path file.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        Self::parse_with(name, text, &BTreeMap::new())
    }

    /// Returns the path of the same file with another name, and other values of its parameters.
    pub(crate) fn with(
        &self,
        name: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        Self::parse_with(name, &self.text, values)
    }

    fn parse_with(
        name: &str,
        text: &str,
        given: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let mut wire: Wire = from_text(text)?;
        let defaults = mem::take(&mut wire.parameters);
        let parameters = parameters::fill_in(defaults, given, wire.templates())?;
        let own = counters::Wire {
            counter: wire.counter,
            conservation: wire.conservation,
        };
        let path = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            parameters,
            summary: wire.summary,
            analysis: wire.analysis,
            tags: wire.tags,
            front: Front::read(wire.front, wire.protocol.as_ref())?,
            query: wire.query,
            ready: wire.ready,
            start_timeout: start_timeout(wire.start_timeout_ms)?,
            describe: wire.describe,
            processes: wire.process,
            files: wire.file,
            counters: Counters::read(wire.counter_set.as_deref(), own)?,
            expect: expected(wire.expect)?,
            requires_files: wire.requires_files,
            install: wire.install,
        };
        path.check()?;
        Ok(path)
    }

    /// Returns whether both have the same name, the same text and the same parameters.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.text, &self.parameters) == (&other.name, &other.text, &other.parameters)
    }

    /// Returns the programs of this workspace that the path runs.
    pub(crate) fn bins(&self) -> BTreeSet<&str> {
        self.places()
            .filter_map(|place| match place {
                Place::Bin(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Returns the programs that must be installed.
    pub(crate) fn programs(&self) -> BTreeSet<&str> {
        self.places()
            .filter_map(|place| match place {
                Place::Program(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Returns the directories in which processes work, as far as they are known before a trial.
    pub(crate) fn directories(&self) -> BTreeSet<&Path> {
        let cwd = self.processes.iter().filter_map(|it| it.cwd.as_ref());
        cwd.filter_map(|cwd| cwd.as_text().map(Path::new)).collect()
    }

    /// Returns the programs that are written literally: a name on `PATH`, or a file.
    pub(crate) fn literal_programs(&self) -> BTreeSet<&str> {
        self.processes
            .iter()
            .flat_map(|process| [process.command.first(), process.version.first()])
            .filter_map(|program| program?.as_text())
            .collect()
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        let processes = self.processes.iter();
        let commands = processes.flat_map(|process| process.texts().chain(&process.version));
        let files = self.files.iter().map(|file| &file.content);
        let describe = self.describe.iter().flatten();
        let asked = self.query.iter().chain([&self.front.address]);
        let templates = commands.chain(files).chain(describe).chain(asked);
        templates.flat_map(Template::places)
    }

    /// Checks what the types can't express.
    fn check(&self) -> Result<(), String> {
        if self.processes.is_empty() {
            return Err("expected at least one [[process]]".to_owned());
        }
        let mut names = BTreeSet::new();
        for process in &self.processes {
            let ProcessDefinition {
                name,
                command,
                version,
                ..
            } = process;
            if !names.insert(name) {
                return Err(format!(
                    "process '{name}' is repeated: expected unique names"
                ));
            }
            if name.is_empty() || name.contains(['/', ' ']) {
                return Err(format!(
                    "process '{name}': expected a name without '/' or spaces"
                ));
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(format!(
                    "process '{name}': expected a name of at most {NAME_BYTES_MAX} bytes, found {}",
                    name.len()
                ));
            }
            let roles = [&process.role]
                .into_iter()
                .chain(process.thread_roles.values());
            for role in roles {
                check_role(role).map_err(|message| format!("process '{name}': {message}"))?;
            }
            if command.is_empty() || version.is_empty() {
                return Err(format!(
                    "process '{name}': expected 'command' and 'version' to begin with a program"
                ));
            }
            let surroundings = check_surroundings(process);
            surroundings.map_err(|message| format!("process '{name}': {message}"))?;
        }
        self.check_counters()?;
        check_names(&self.files)?;
        let files: BTreeSet<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        for place in self.places() {
            if let Place::File(name) = place
                && !files.contains(name.as_str())
            {
                return Err(format!(
                    "'{{{{file:{name}}}}}': expected a [[file]] with that name"
                ));
            }
        }
        if !self.ready.starts_with('/') {
            return Err(format!(
                "'ready': expected a path that begins with '/': '{}'",
                self.ready
            ));
        }
        let is_front = |place: &Place| matches!(place, Place::Port(_) | Place::Socket(_));
        if !self.front.address.places().any(is_front) {
            return Err("'front': expected a '{{port:…}}' for clients to connect to".to_owned());
        }
        self.check_addresses()?;
        self.front.check_tls(self.places())?;
        self.check_ports()?;
        self.check_wiring()
    }

    /// Returns whether its processes or its clients need certificates.
    pub(crate) fn needs_certificates(&self) -> bool {
        let is_tls = |place: &Place| matches!(place, Place::Tls(_));
        self.front.protocol.tls || self.places().any(is_tls)
    }
}

impl PathDefinition {
    fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.processes.iter().flat_map(|process| {
            let roles = process.thread_roles.values().chain([&process.role]);
            roles.map(|role| (process.name.as_str(), role.as_str()))
        })
    }

    /// Checks that no role is one of the `known` paths' with a slip of the pen. A role may be any
    /// word, and so its CPU time would be in a column of its own.
    pub(super) fn check_roles(&self, known: &[Self]) -> Result<(), String> {
        let known = known.iter().flat_map(Self::roles);
        let known: BTreeSet<&str> = known.map(|(_, role)| role).collect();
        for (process, role) in self.roles().filter(|(_, role)| !known.contains(role)) {
            if let Some(meant) = known.iter().find(|known| is_slip(role, known)) {
                return Err(format!(
                    "process '{process}': role '{role}': did you mean '{meant}'? Expected that, or \
                     a word that can't be taken for it"
                ));
            }
        }
        Ok(())
    }

    /// Checks that no port is named once, with a letter more or less than another, or with two
    /// letters swapped. Nobody would answer there. Ports that only one program needs may be named
    /// once.
    fn check_ports(&self) -> Result<(), String> {
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        for place in self.places() {
            if let Place::Port(name) = place {
                *uses.entry(name).or_default() += 1;
            }
        }
        let once = uses.iter().filter(|(_, uses)| **uses == 1);
        for (name, _) in once {
            let others = uses.keys().filter(|other| *other != name);
            if let Some(meant) = others.copied().find(|other| is_slip(name, other)) {
                return Err(format!(
                    "'{{{{port:{name}}}}}' is used only once (did you mean '{{{{port:{meant}}}}}'?)"
                ));
            }
        }
        Ok(())
    }

    fn check_wiring(&self) -> Result<(), String> {
        let files = self.files.iter();
        let files: Vec<_> = files
            .map(|file| (file.name.as_str(), &file.content))
            .collect();
        let processes = self.processes.iter().map(|process| {
            let texts = process.texts();
            (process.name.as_str(), texts.collect())
        });
        wiring::check(&self.front, processes, &files)
    }

    fn check_addresses(&self) -> Result<(), String> {
        let commands = self.processes.iter();
        let commands =
            commands.flat_map(|process| process.command.iter().chain(process.env.values()));
        let files = self.files.iter().map(|file| &file.content);
        let texts: Vec<&Template> = commands.chain(files).collect();
        let of_front = |message| format!("'front': {message}");
        address::check(&self.front.address, &texts).map_err(of_front)?;
        for ProcessDefinition { name, admin, .. } in &self.processes {
            let of_admin = |message| format!("process '{name}': 'admin': {message}");
            let mut admin = admin.iter();
            admin
                .try_for_each(|admin| address::check(admin, &texts))
                .map_err(of_admin)?;
        }
        Ok(())
    }

    /// Checks that there are processes to serve the declared counters.
    fn check_counters(&self) -> Result<(), String> {
        let serving = || self.processes.iter().filter(|it| it.admin.is_some());
        if !self.counters.is_empty() && serving().next().is_none() {
            return Err(
                "'counter-set', 'counter' and 'conservation': expected a process with 'admin', \
                 which serves the counters"
                    .to_owned(),
            );
        }
        for rule in &self.counters.rules {
            if let Some(role) = &rule.role
                && !serving().any(|process| process.role == *role)
            {
                return Err(format!(
                    "[[conservation]]: 'role': no process with 'admin' has the role '{role}'"
                ));
            }
        }
        Ok(())
    }
}

/// Checks the label under which CPU time is reported, in tables, in JSON and in lines of words.
fn check_role(role: &str) -> Result<(), String> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "-_".contains(letter);
    if role.is_empty() || !role.chars().all(is_plain) {
        return Err(format!(
            "role '{role}': expected a word of letters, digits, '-' and '_'"
        ));
    }
    if RESERVED_ROLES.contains(&role) {
        return Err(format!(
            "role '{role}': expected a word other than {}, under which hopbench itself reports \
             CPU time",
            RESERVED_ROLES.map(|role| format!("'{role}'")).join(" and ")
        ));
    }
    Ok(())
}

fn expected(
    wire: BTreeMap<String, WireExpect>,
) -> Result<BTreeMap<String, ExpectedAnswer>, String> {
    let read = |(name, wire): (String, WireExpect)| {
        let answer = wire.read();
        let answer = answer.map_err(|message| format!("[expect.{name}]: {message}"))?;
        Ok((name, answer))
    };
    wire.into_iter().map(read).collect()
}

fn start_timeout(given_ms: Option<u64>) -> Result<Duration, String> {
    match given_ms.unwrap_or(START_TIMEOUT_MS) {
        given_ms @ 1..=START_TIMEOUT_MS_MAX => Ok(Duration::from_millis(given_ms)),
        given_ms => Err(format!(
            "'start-timeout-ms': expected milliseconds from 1 to {START_TIMEOUT_MS_MAX}: \
             '{given_ms}'"
        )),
    }
}

/// Checks the environment and the directory of a process.
fn check_surroundings(process: &ProcessDefinition) -> Result<(), String> {
    let is_plain = |name: &str| {
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        begins
            && name
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || it == '_')
    };
    for (name, value) in &process.env {
        if !is_plain(name) || name.starts_with(OWN_VARIABLES) {
            return Err(format!(
                "'env': '{}': expected a name of letters, digits and '_' that doesn't begin with \
                 a digit or '{OWN_VARIABLES}'",
                name.escape_debug()
            ));
        }
        if value.to_string().contains('\0') {
            return Err(format!(
                "'env': '{name}': expected a text without zero bytes"
            ));
        }
    }
    let Some(cwd) = &process.cwd else {
        return Ok(());
    };
    match cwd.as_text().is_some_and(|cwd| cwd.starts_with('/')) {
        true => Ok(()),
        false => Err(format!(
            "'cwd': expected the full path of a directory, such as '/srv/www': '{cwd}'"
        )),
    }
}

fn default_ready() -> String {
    "/health".to_owned()
}
