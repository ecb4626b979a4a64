//! A hop that a probe has started, with a configuration that the probe writes.

use std::{cell::RefCell, fs, io, net::SocketAddr, os::fd::OwnedFd, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Session, client::Connection};
use crate::{
    catalog::{ConfigParts, Fill as _, ProbeHop, Reload},
    observe::{
        http::{Client, Endpoint},
        status::Status,
    },
    process::{
        Child, Output, StatedUmask, Strays, Watchman, ask_until, describe_exit, stop_all,
        temporary_directory,
    },
    run::trial::TrialFill,
};

/// A running hop. Dropping it kills the process and removes its directory.
pub(super) struct RunningHop<'a> {
    child: Child,
    front: SocketAddr,
    admin: Option<Endpoint>,
    definition: ProbeHop,
    /// Keeps the ports for the next configuration.
    fill: RefCell<TrialFill<'a>>,
    strays: Strays,
    _watchman: Watchman,
    directory: TempDir,
}

/// How a hop is started.
#[derive(Default)]
pub(super) struct Start<'p> {
    pub(super) config: ConfigParts<'p>,
    /// Files of its directory, besides the configuration: name and text.
    pub(super) files: &'p [(String, String)],
    /// Opens what its stdout goes to instead of its log, in its directory.
    pub(super) stdout: Option<OpenStdout<'p>>,
}

/// Opens the stdout of a hop in its directory.
pub(super) type OpenStdout<'p> = Box<dyn FnOnce(&Path) -> io::Result<OwnedFd> + 'p>;

/// Name of the configuration's file.
const CONFIG: &str = "hop.conf";

/// Time that a hop may take until it accepts connections.
const START_MAX: Duration = Duration::from_secs(20);

/// Time that it may take to stop.
const STOP_MAX: Duration = Duration::from_secs(4);

/// Time that its counters may take.
const ADMIN_MAX: Duration = Duration::from_secs(5);

impl<'a> RunningHop<'a> {
    /// Starts a hop and waits until it accepts connections.
    pub(super) fn start(
        session: &Session<'a>,
        definition: &ProbeHop,
        start: Start<'_>,
    ) -> anyhow::Result<Self> {
        let directory = temporary_directory()?;
        let umask = StatedUmask::set();
        let mut fill = TrialFill::new(session.toolbox(), directory.path());
        let front = ([127, 0, 0, 1], fill.port("front")?).into();
        for (name, text) in start.files {
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().unwrap_or_else(|| Path::new("/")))?;
            fs::write(file, text)?;
        }
        let config = config(definition, &start.config, &mut fill)?;
        fs::write(directory.path().join(CONFIG), config)?;
        drop(umask);
        let command = fill.command(&definition.command, definition.stops_with_stdin)?;
        let admin = definition.admin.as_ref();
        let admin = admin.map(|admin| admin.fill(&mut fill)).transpose()?;
        let admin = admin.map(|it| it.parse().map_err(anyhow::Error::msg));
        let strays = Strays::adopt(directory.path())?;
        let mut watchman = Watchman::start(directory.path())?;
        let log = session.log(&definition.name);
        let output = match start.stdout {
            Some(open) => Output::Into(open(directory.path())?, log),
            None => Output::Log(log),
        };
        let child = Child::start(&definition.name, &command, output)?;
        watchman.watch(&child);
        let mut hop = Self {
            child,
            front,
            admin: admin.transpose()?,
            definition: definition.clone(),
            fill: RefCell::new(fill),
            strays,
            _watchman: watchman,
            directory,
        };
        hop.wait_for_listener(session)?;
        Ok(hop)
    }

    fn wait_for_listener(&mut self, session: &Session<'_>) -> anyhow::Result<()> {
        let pause = Duration::from_millis(2);
        let front = self.front;
        let child = &mut self.child;
        let ready = ask_until(START_MAX, pause, || {
            let is_over = !matches!(child.exit_status(), Ok(None)) || session.go_on().is_err();
            let accepts = Connection::open(front, Duration::from_secs(1)).is_ok();
            (is_over || accepts).then_some(accepts && !is_over)
        });
        session.go_on()?;
        if ready != Some(true) {
            bail!("it doesn't listen at '{front}'{}", self.end());
        }
        Ok(())
    }

    /// Says how the hop has ended, if it has, and what it said last.
    fn end(&mut self) -> String {
        let exit = self.child.exit_status().ok().flatten();
        let exit = exit.map_or_else(String::new, |it| format!("; it {}", describe_exit(it)));
        format!("{exit}: {}", self.last_lines())
    }

    /// Writes another configuration as a whole, and has the hop read it.
    pub(super) fn change(&self, parts: &ConfigParts<'_>) -> anyhow::Result<()> {
        let config = config(&self.definition, parts, &mut self.fill.borrow_mut())?;
        self.replace(CONFIG, &config)
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
        self.child.signal_alone(match self.definition.reload {
            Reload::Hup => Signal::SIGHUP,
            Reload::Usr2 => Signal::SIGUSR2,
        });
    }

    /// Returns an error if the hop has ended.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        if self.child.exit_status()?.is_some() {
            let end = self.end();
            bail!("'{}' ended by itself{end}", self.child.name());
        }
        Ok(())
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
        let status = Status::ask(client, admin, ADMIN_MAX)?;
        let value = status.counters.get(name).copied();
        value.with_context(|| format!("it has no counter '{name}'"))
    }

    /// Stops the hop.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.must_run()?;
        let group = self.child.pid();
        stop_all(vec![self.child], STOP_MAX);
        self.strays.end(&[group]);
        Ok(())
    }
}

/// Makes the text of a configuration.
fn config(
    definition: &ProbeHop,
    parts: &ConfigParts<'_>,
    fill: &mut TrialFill<'_>,
) -> anyhow::Result<String> {
    let text = definition.configured(parts).map_err(anyhow::Error::msg)?;
    text.fill(fill)
}

/// Returns the hops of a probe that are chosen and can be run here, and notes the others.
pub(super) fn available(session: &mut Session<'_>) -> anyhow::Result<Vec<ProbeHop>> {
    let mut found = Vec::new();
    for hop in &session.definition().hops {
        if !session.is_chosen(&hop.name) {
            continue;
        }
        match session.missing(&hop.command) {
            Some(program) => {
                session.note(format!("'{}' is left out: no '{program}'", hop.name))?;
            }
            None => found.push(hop.clone()),
        }
    }
    Ok(found)
}

/// Starts the server that the hops forward to.
pub(super) fn origin<'a>(session: &Session<'a>) -> anyhow::Result<RunningHop<'a>> {
    let definition = session.definition().origin.as_ref();
    let definition = definition.context("the probe has no '[origin]'")?;
    RunningHop::start(session, definition, Start::default()).context("the origin")
}
