//! A hop that a probe has started, with a configuration that the probe writes.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::{Session, client::Connection, poll};
use crate::{
    catalog::{ProbeHop, Reload},
    observe::http::{Client, Endpoint, Question},
    process::{Child, Command, Output, Strays, Watchman, stop_all},
    run::trial::TrialFill,
};

/// A running hop. Dropping it kills the process and removes its directory.
pub(super) struct RunningHop {
    child: Child,
    front: SocketAddr,
    admin: Option<Endpoint>,
    definition: ProbeHop,
    reload: Signal,
    strays: Strays,
    _watchman: Watchman,
    directory: TempDir,
}

/// The changing parts of a configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts<'a> {
    /// Number of routes, and of upstreams.
    pub(super) routes: u32,
    /// Port of the upstream of all routes.
    pub(super) origin: u16,
    pub(super) generation: u32,
    /// Words that are chosen, by the name of the place: the name of the word.
    pub(super) words: &'a [(&'a str, &'a str)],
    /// Files of the hop's directory, besides its configuration: name and text.
    pub(super) files: &'a [(String, String)],
}

/// The part of a hop's status that is used.
#[derive(Debug, Deserialize)]
struct Status {
    counters: BTreeMap<String, u64>,
}

/// Name of the configuration's file.
const CONFIG: &str = "hop.conf";

/// Time that a hop may take until it accepts connections.
const START_MAX: Duration = Duration::from_secs(20);

/// Time that it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(4);

impl RunningHop {
    /// Starts a hop and waits until it accepts connections.
    pub(super) fn start(
        session: &Session<'_>,
        definition: &ProbeHop,
        parts: &Parts<'_>,
        output: impl FnOnce(PathBuf) -> Output,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("hopbench-").tempdir()?;
        let mut fill = TrialFill::new(session.toolbox, directory.path());
        let front = crate::catalog::Fill::port(&mut fill, "front")?;
        fs::create_dir(directory.path().join("secrets"))?;
        for (name, text) in parts.files {
            fs::write(directory.path().join(name), text)?;
        }
        let config = config(definition, parts, front, directory.path())?;
        fs::write(directory.path().join(CONFIG), config)?;
        let words = definition.command.iter().map(|word| word.fill(&mut fill));
        let mut words = words.collect::<anyhow::Result<Vec<String>>>()?.into_iter();
        let admin = definition.admin.as_ref();
        let admin = admin.map(|admin| admin.fill(&mut fill)).transpose()?;
        let admin = admin.map(|it| it.parse().map_err(anyhow::Error::msg));
        let command = Command {
            program: words.next().unwrap_or_default().into(),
            arguments: words.collect(),
            directory: Some(directory.path().to_owned()),
            stops_with_stdin: definition.stops_with_stdin,
        };
        let strays = Strays::adopt(directory.path())?;
        let mut watchman = Watchman::start(directory.path())?;
        let log = session.logs().join(format!("{}.log", definition.name));
        let child = Child::start(&definition.name, &command, output(log))?;
        watchman.watch(&child);
        let mut hop = Self {
            child,
            front: ([127, 0, 0, 1], front).into(),
            admin: admin.transpose()?,
            definition: definition.clone(),
            reload: match definition.reload {
                Reload::Hup => Signal::SIGHUP,
                Reload::Usr2 => Signal::SIGUSR2,
            },
            strays,
            _watchman: watchman,
            directory,
        };
        hop.wait_for_listener()?;
        Ok(hop)
    }

    fn wait_for_listener(&mut self) -> anyhow::Result<()> {
        let pause = Duration::from_millis(2);
        let front = self.front;
        let child = &mut self.child;
        let ready = poll(START_MAX, pause, || {
            let has_ended = !matches!(child.exit_status(), Ok(None));
            let accepts = Connection::open(front, Duration::from_secs(1)).is_ok();
            (has_ended || accepts).then_some(accepts)
        });
        if ready != Some(true) {
            let (name, log) = (self.child.name(), self.child.last_lines().join(" / "));
            bail!("'{name}' doesn't listen at '{front}': {log}");
        }
        Ok(())
    }

    /// Writes another configuration as a whole, and has the hop read it.
    pub(super) fn change(&self, parts: &Parts<'_>) -> anyhow::Result<()> {
        let config = config(
            &self.definition,
            parts,
            self.front.port(),
            self.directory.path(),
        )?;
        self.replace(CONFIG, &config)?;
        self.read_again();
        Ok(())
    }

    /// Writes a file of the hop's directory as a whole.
    pub(super) fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let file = self.directory.path().join(name);
        let fresh = self.directory.path().join("hop.fresh");
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &file));
        written.with_context(|| format!("could not write '{}'", file.display()))
    }

    /// Has the hop read its configuration again.
    pub(super) fn read_again(&self) {
        self.child.signal_alone(self.reload);
    }

    pub(super) fn front(&self) -> SocketAddr {
        self.front
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Returns the last lines that the hop has logged.
    pub(super) fn last_lines(&self) -> String {
        self.child.last_lines().join(" / ")
    }

    /// Reads one of the hop's counters.
    pub(super) fn counter(&self, client: &Client, name: &str) -> anyhow::Result<u64> {
        let admin = self.admin.as_ref().context("a counter needs 'admin'")?;
        let question = Question {
            method: "GET",
            target: "/_admin/status",
            headers: &[],
            body: Default::default(),
        };
        let answer = client.ask(admin, &question, Duration::from_secs(5))?;
        let status: Status = serde_json::from_slice(&answer.beginning)?;
        let value = status.counters.get(name).copied();
        value.with_context(|| format!("'{}' has no counter '{name}'", self.child.name()))
    }

    /// Stops the hop; returns whether it had to be killed.
    pub(super) fn stop(self) -> bool {
        let group = self.child.pid();
        let killed = stop_all(vec![self.child], STOP_MAX);
        self.strays.end(&[group]);
        !killed.is_empty()
    }
}

/// Makes the text of a configuration.
fn config(
    definition: &ProbeHop,
    parts: &Parts<'_>,
    front: u16,
    directory: &Path,
) -> anyhow::Result<String> {
    let repeat = |text: &str| -> String {
        let numbered = |number: u32| text.replace("{{number}}", &number.to_string());
        (1..=parts.routes).map(numbered).collect()
    };
    let mut text = definition
        .config
        .replace("{{routes}}", &repeat(&definition.route))
        .replace("{{upstreams}}", &repeat(&definition.upstream))
        .replace("{{port:front}}", &front.to_string())
        .replace("{{origin}}", &parts.origin.to_string())
        .replace("{{generation}}", &parts.generation.to_string())
        .replace("{{dir}}", &directory.display().to_string());
    for (place, word) in parts.words {
        let word = definition.words.get(*word).map_or("", String::as_str);
        text = text.replace(&format!("{{{{word:{place}}}}}"), word);
    }
    match text.find("{{") {
        None => Ok(text),
        Some(at) => bail!(
            "'{}': '{}' is not known in a configuration",
            definition.name,
            text[at..].split_inclusive("}}").next().unwrap_or_default()
        ),
    }
}

/// Returns the hops of a probe that are chosen and can be run here, and notes the others.
pub(super) fn available(session: &mut Session<'_>) -> anyhow::Result<Vec<ProbeHop>> {
    let mut found = Vec::new();
    for hop in session.definition.hops.clone() {
        if !session.is_chosen(&hop.name) {
            continue;
        }
        let toolbox = session.toolbox;
        let missing = hop.programs().find(|name| toolbox.program(name).is_none());
        match missing {
            Some(program) => {
                session.note(format!("'{}' is left out: no '{program}'", hop.name))?;
            }
            None => found.push(hop),
        }
    }
    Ok(found)
}

/// Starts the server that the hops forward to.
pub(super) fn origin(session: &Session<'_>) -> anyhow::Result<RunningHop> {
    let definition = session.definition.origin.as_ref();
    let definition = definition.context("the probe has no '[origin]'")?;
    RunningHop::start(session, definition, &Parts::default(), Output::Log)
}
