//! Probes: what isn't a load of requests. Commands, starts, changes of configurations, secrets,
//! logs, long-lived connections, and slow networks.
//!
//! Each kind of [`ProbeKind`] has a file here. All of them add observations to a [`Session`], which
//! keeps each on disk before the next is made.

mod changes;
mod client;
mod commands;
mod connections;
mod hop;
mod kept;
mod logs;
mod network;
mod proxied;
mod secrets;
mod server;
mod starts;
mod tail;

use std::{cell::Cell, mem, path::PathBuf, time::Duration};

use hopbench_analysis::probe::{Observation, ProbeInfo, Probed};
use tempfile::TempDir;

pub(crate) use self::{
    kept::{ProbeDir, is_probe},
    network::{Entered, enter},
};
use crate::{
    catalog::{self, Catalog, ProbeDefinition, ProbeKind, Template},
    console::say,
    mistake::Mistake,
    plan::{toolbox::Toolbox, variants::Parameters},
    process::{Interrupt, Interrupted, Watchman, temporary_directory},
};

/// A fault that is injected to test a probe's rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// A request is dropped at each change
    DroppedRequest,
    /// Packets to hops, and from them, are 20 ms late
    LatePackets,
    /// Ten connections are never closed
    LeakedDescriptors,
    /// A line in fifty is lost on its way from the log
    LostLines,
    /// A program starts 300 ms late
    SlowStart,
    /// One file keeps its old secret
    StaleSecret,
}

/// How to probe, independently of what.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) cycles: Option<u32>,
    pub(crate) is_quick: bool,
    /// If not empty, the only paths or hops to probe.
    pub(crate) only: Vec<String>,
    pub(crate) sizes: Vec<u32>,
    pub(crate) fault: Option<Fault>,
    /// Values for parameters of the paths' files.
    pub(crate) parameters: Parameters,
    pub(crate) seed: u64,
    pub(crate) silent: bool,
}

/// The thing that is probed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) toolbox: &'a Toolbox,
    pub(crate) catalog: &'a Catalog,
    pub(crate) definition: &'a ProbeDefinition,
    pub(crate) prepared: &'a Prepared,
}

/// A probe that is under way.
pub(crate) struct Session<'a> {
    of: Subject<'a>,
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    rng: fastrand::Rng,
    directory: ProbeDir,
    probed: Probed,
    /// Number of processes that were started, for the names of their logs.
    started: Cell<u32>,
}

/// Files that a probe needs, which end with it.
#[derive(Debug)]
pub(crate) struct Prepared {
    directory: TempDir,
    _watchman: Watchman,
}

/// Makes what a probe needs before it begins: nothing else may measure meanwhile.
pub(crate) fn prepare(
    toolbox: &Toolbox,
    catalog: &Catalog,
    definition: &ProbeDefinition,
    settings: &Settings,
) -> anyhow::Result<Prepared> {
    let directory = temporary_directory()?;
    let prepared = Prepared {
        _watchman: Watchman::start(directory.path())?,
        directory,
    };
    if commands::need_run(definition, settings) {
        commands::make_run(toolbox, catalog, prepared.directory.path())?;
    }
    Ok(prepared)
}

/// How late a program is with [`Fault::SlowStart`].
const SLOW_START_MS: u64 = 300;

impl Fault {
    /// Returns the kind of probe whose rules find it.
    fn kinds(self) -> &'static [ProbeKind] {
        match self {
            Self::DroppedRequest => &[ProbeKind::Changes],
            Self::LatePackets => &[ProbeKind::Network],
            Self::LeakedDescriptors => &[ProbeKind::Connections],
            Self::LostLines => &[ProbeKind::Logs],
            Self::SlowStart => &[ProbeKind::Commands, ProbeKind::Starts],
            Self::StaleSecret => &[ProbeKind::Secrets],
        }
    }

    pub(crate) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Probes, and returns what was observed. If the user interrupts, that is what was observed by
/// then.
pub(crate) fn probe(
    of: Subject<'_>,
    settings: &Settings,
    interrupt: &Interrupt,
    directory: ProbeDir,
    info: ProbeInfo,
    entered: &Entered,
) -> anyhow::Result<Probed> {
    let mut session = Session {
        of,
        settings,
        interrupt,
        rng: fastrand::Rng::with_seed(settings.seed),
        directory,
        probed: Probed {
            info,
            observations: Vec::new(),
        },
        started: Cell::new(0),
    };
    let done = match of.definition.kind {
        ProbeKind::Changes => changes::observe(&mut session),
        ProbeKind::Commands => commands::observe(&mut session),
        ProbeKind::Connections => connections::observe(&mut session),
        ProbeKind::Logs => logs::observe(&mut session),
        ProbeKind::Network => network::observe(&mut session, entered),
        ProbeKind::Secrets => secrets::observe(&mut session),
        ProbeKind::Starts => starts::observe(&mut session),
    };
    let is_finished = match done {
        Ok(()) => true,
        Err(error) if error.is::<Interrupted>() => false,
        Err(error) => return Err(error),
    };
    let mut probed = session.probed;
    probed.info.is_finished = is_finished;
    if !settings.only.is_empty() {
        // Rules for what was not asked for are not broken.
        let mut rules = mem::take(&mut probed.info.rules);
        rules.retain(|rule| !rule.subjects(&probed).is_empty());
        probed.info.rules = rules;
    }
    session.directory.write_info(&probed.info)?;
    Ok(probed)
}

/// Checks that the settings fit the probe, before anything is written.
pub(crate) fn check(definition: &ProbeDefinition, settings: &Settings) -> Result<(), Mistake> {
    if let Some(fault) = settings.fault
        && !fault.kinds().contains(&definition.kind)
    {
        return Err(Mistake(format!(
            "'--inject {}' is for another probe than '{}'; see 'hopbench probe --help'",
            fault.name(),
            definition.name
        )));
    }
    if !settings.sizes.is_empty() && definition.sizes.is_empty() {
        return Err(Mistake(format!(
            "'{}' has no sizes: leave out '--size'",
            definition.name
        )));
    }
    if !settings.parameters.is_empty() && definition.kind != ProbeKind::Starts {
        return Err(Mistake(format!(
            "'{}' starts no paths: leave out '--set' and '--sweep'",
            definition.name
        )));
    }
    let known: Vec<&str> = match definition.kind {
        ProbeKind::Commands => definition
            .commands
            .iter()
            .map(|it| it.name.as_str())
            .collect(),
        ProbeKind::Starts => return Ok(()),
        _ => definition.hops.iter().map(|it| it.name.as_str()).collect(),
    };
    let stranger = settings
        .only
        .iter()
        .find(|name| !known.contains(&name.as_str()));
    stranger.map_or(Ok(()), |name| {
        Err(Mistake(format!(
            "'{}' has no '{name}'; it has '{}'",
            definition.name,
            known.join("', '")
        )))
    })
}

impl<'a> Session<'a> {
    fn toolbox(&self) -> &'a Toolbox {
        self.of.toolbox
    }

    fn definition(&self) -> &'a ProbeDefinition {
        self.of.definition
    }

    /// Returns how often everything is observed.
    fn cycles(&self) -> u32 {
        let own = match self.settings.is_quick {
            true => self.definition().quick_cycles,
            false => self.definition().cycles,
        };
        self.settings.cycles.unwrap_or(own)
    }

    /// Returns the numbers of routes, files or connections.
    fn sizes(&self) -> Vec<u32> {
        match (self.settings.sizes.as_slice(), self.settings.is_quick) {
            ([], true) => self.definition().quick_sizes.clone(),
            ([], false) => self.definition().sizes.clone(),
            (sizes, _) => sizes.to_vec(),
        }
    }

    fn has_fault(&self, fault: Fault) -> bool {
        self.settings.fault == Some(fault)
    }

    /// Returns whether a subject is to be observed. What others are compared with always is.
    fn is_chosen(&self, name: &str) -> bool {
        let only = &self.settings.only;
        let mut rules = self.definition().rules.iter();
        only.is_empty()
            || only.iter().any(|one| one == name)
            || rules.any(|rule| rule.over.as_deref() == Some(name))
    }

    /// Returns a program that a command needs and that isn't installed.
    fn missing<'w>(&self, command: &'w [Template]) -> Option<&'w str> {
        catalog::programs(command).find(|name| self.toolbox().program(name).is_none())
    }

    /// Returns the place of the log of a process that is about to start.
    fn log(&self, name: &str) -> PathBuf {
        let number = self.started.get() + 1;
        self.started.set(number);
        self.directory.raw().join(format!("{number:04}-{name}.log"))
    }

    /// Sets the order in which tables have the subjects.
    fn order(&mut self, subjects: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        self.probed.info.subjects.extend(subjects);
        self.directory.write_info(&self.probed.info)
    }

    /// Observes a subject. If that fails, it is noted and counted: others don't suffer by it.
    fn attempt(
        &mut self,
        cycle: u32,
        subject: &str,
        observe: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.go_on()?;
        let failed = match observe(self) {
            Ok(()) => 0,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                self.note(format!("'{subject}', cycle {cycle}: {error:#}"))?;
                1
            }
        };
        self.add_count(cycle, subject, "failures", failed)
    }

    /// Keeps an observation, on disk and in memory.
    fn add(&mut self, cycle: u32, subject: &str, measure: &str, value: f64) -> anyhow::Result<()> {
        let observation = Observation {
            cycle,
            subject: subject.to_owned(),
            measure: measure.to_owned(),
            value,
        };
        self.directory.append(&observation)?;
        self.probed.observations.push(observation);
        Ok(())
    }

    /// Keeps a duration in microseconds.
    fn add_time(
        &mut self,
        cycle: u32,
        subject: &str,
        measure: &str,
        time: Duration,
    ) -> anyhow::Result<()> {
        self.add(cycle, subject, measure, time.as_secs_f64() * 1e6)
    }

    /// Keeps a number of things.
    fn add_count(
        &mut self,
        cycle: u32,
        subject: &str,
        measure: &str,
        count: usize,
    ) -> anyhow::Result<()> {
        self.add(cycle, subject, measure, count as f64)
    }

    /// Notes what is left out, or doubtful, once.
    fn note(&mut self, note: String) -> anyhow::Result<()> {
        if !self.probed.info.notes.contains(&note) {
            self.say(&format!("note: {note}"));
            self.probed.info.notes.push(note);
            self.directory.write_info(&self.probed.info)?;
        }
        Ok(())
    }

    /// Tells the user how far it is.
    fn say(&self, text: &str) {
        if !self.settings.silent {
            say(text);
        }
    }

    /// Returns an error if the user wants to stop.
    fn go_on(&self) -> anyhow::Result<()> {
        match self.interrupt.is_requested() {
            true => Err(Interrupted.into()),
            false => Ok(()),
        }
    }
}
