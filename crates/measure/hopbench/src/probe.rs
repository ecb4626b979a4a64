//! Probes: what isn't a load of requests. Commands, starts, changes of configurations, secrets,
//! logs, and long-lived connections.
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
mod proxied;
mod secrets;
mod server;
mod starts;
mod tail;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use hopbench_analysis::probe::{Observation, ProbeInfo, Probed};
use tempfile::TempDir;

pub(crate) use self::kept::{ProbeDir, is_probe};
use crate::{
    catalog::{Catalog, ProbeDefinition, ProbeKind},
    console::say,
    mistake::Mistake,
    plan::toolbox::Toolbox,
    process::{Interrupt, Interrupted},
};

/// A fault that is injected to test a probe's rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Fault {
    /// A request is dropped at each change
    DroppedRequest,
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
    pub(crate) seed: u64,
    pub(crate) silent: bool,
}

/// A probe that is under way.
pub(crate) struct Session<'a> {
    toolbox: &'a Toolbox,
    catalog: &'a Catalog,
    definition: &'a ProbeDefinition,
    prepared: &'a Prepared,
    settings: &'a Settings,
    interrupt: &'a Interrupt,
    rng: fastrand::Rng,
    directory: ProbeDir,
    probed: Probed,
}

/// The thing that is probed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) toolbox: &'a Toolbox,
    pub(crate) catalog: &'a Catalog,
    pub(crate) definition: &'a ProbeDefinition,
    pub(crate) prepared: &'a Prepared,
}

/// Things that a probe needs, made before it begins.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Holds a run in `run`, for commands that read one.
    directory: TempDir,
}

/// Makes what a probe needs. Nothing else may measure meanwhile.
pub(crate) fn prepare(
    toolbox: &Toolbox,
    catalog: &Catalog,
    definition: &ProbeDefinition,
) -> anyhow::Result<Prepared> {
    let directory = tempfile::Builder::new().prefix("hopbench-").tempdir()?;
    if definition.kind == ProbeKind::Commands {
        commands::make_run(toolbox, catalog, directory.path())?;
    }
    Ok(Prepared { directory })
}

/// How late a program is with [`Fault::SlowStart`].
const SLOW_START_MS: u64 = 300;

impl Fault {
    /// Returns the kind of probe whose rules find it.
    fn kinds(self) -> &'static [ProbeKind] {
        match self {
            Self::DroppedRequest => &[ProbeKind::Changes],
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
    subject: &Subject<'_>,
    settings: &Settings,
    interrupt: &Interrupt,
    (directory, info): (ProbeDir, ProbeInfo),
) -> anyhow::Result<(Probed, bool)> {
    let definition = subject.definition;
    let mut session = Session {
        toolbox: subject.toolbox,
        catalog: subject.catalog,
        definition,
        prepared: subject.prepared,
        settings,
        interrupt,
        rng: fastrand::Rng::with_seed(settings.seed),
        directory,
        probed: Probed {
            info,
            observations: Vec::new(),
        },
    };
    let done = match definition.kind {
        ProbeKind::Changes => changes::observe(&mut session),
        ProbeKind::Commands => commands::observe(&mut session),
        ProbeKind::Connections => connections::observe(&mut session),
        ProbeKind::Logs => logs::observe(&mut session),
        ProbeKind::Secrets => secrets::observe(&mut session),
        ProbeKind::Starts => starts::observe(&mut session),
    };
    if !settings.only.is_empty() {
        // Rules for what was not asked for are not broken.
        let observed = session.probed.clone();
        let rules = &mut session.probed.info.rules;
        rules.retain(|rule| rule.has_subject(&observed));
        session.directory.write_info(&session.probed.info)?;
    }
    match done {
        Ok(()) => Ok((session.probed, false)),
        Err(error) if error.is::<Interrupted>() => Ok((session.probed, true)),
        Err(error) => Err(error),
    }
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

impl Session<'_> {
    /// Returns how often everything is observed.
    fn cycles(&self) -> u32 {
        let own = match self.settings.is_quick {
            true => self.definition.quick_cycles,
            false => self.definition.cycles,
        };
        self.settings.cycles.unwrap_or(own)
    }

    /// Returns the numbers of routes, files or connections.
    fn sizes(&self) -> Vec<u32> {
        match (self.settings.sizes.as_slice(), self.settings.is_quick) {
            ([], true) => self.definition.quick_sizes.clone(),
            ([], false) => self.definition.sizes.clone(),
            (sizes, _) => sizes.to_vec(),
        }
    }

    fn has_fault(&self, fault: Fault) -> bool {
        self.settings.fault == Some(fault)
    }

    /// Returns whether a subject is to be observed.
    fn is_chosen(&self, name: &str) -> bool {
        let only = &self.settings.only;
        only.is_empty() || only.iter().any(|one| one == name)
    }

    /// Returns the place of the logs.
    fn logs(&self) -> PathBuf {
        self.directory.raw()
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

/// Waits until a time that a schedule has set.
#[expect(
    clippy::disallowed_methods,
    reason = "it keeps a rate; there is no event to wait for"
)]
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// Asks again and again, with pauses, until there is an answer or the time is up.
fn poll<T>(at_most: Duration, pause: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        wait_until(Instant::now() + pause);
    }
}
