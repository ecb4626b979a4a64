//! One trial: starts a fresh path, verifies its answer, warms it up, loads it, reads its usage,
//! stops it.
//!
//! [`Executor`] is the seam: [`Live`] starts processes, and tests put a script in its place, so
//! that everything around trials can be tested without a socket or a clock.

mod cold_start;
mod difference;
mod fill;
mod front;
mod judge;
mod last_words;
mod load;
mod placed;
mod profile;
mod rendered;
mod seconds;
mod stage;
mod validity;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use hopbench_analysis::record::{
    Cell, Disturbance, Failure, FailureKind, Outcome, PlannedTrial, Prepared, ProcessUsage, Source,
    Timing, Trial,
};

pub(crate) use self::{cold_start::ColdStart, fill::TrialFill};
use self::{
    judge::{check_conservation, judge, judge_preparation, judge_trial, repeated},
    load::{Bodies, Order},
    placed::{confine_path, keep_awake},
    seconds::Seconds,
    stage::Stage,
};
use crate::{
    catalog::{PathDefinition, ScenarioDefinition},
    observe::{
        http::Client,
        machine,
        usage::{MachineSnapshot, Snapshot},
    },
    plan::{selection::Selection, toolbox::Toolbox, work::Work},
    process::{Interrupt, Interrupted},
    run::{builds::Builds, certificates::Certificates},
};

/// Is called with the index of each stage of a load that begins.
pub(crate) type OnStage<'a> = &'a mut dyn FnMut(usize);

/// The record of a trial, unless it was interrupted.
pub(crate) type Executed = Result<Trial, Interrupted>;

/// Runs one trial. Whatever goes wrong, with the path or around it, is recorded. Only an
/// interruption leaves no record.
pub(crate) trait Executor {
    /// Calls `on_stage` with the index of each stage of the load that begins.
    fn execute(&mut self, planned: &PlannedTrial, on_stage: OnStage<'_>) -> Executed;
}

/// Runs trials with real processes and a real load.
#[derive(Debug)]
pub(crate) struct Live<'a> {
    pub(crate) toolbox: &'a Toolbox,
    pub(crate) builds: Option<&'a Builds>,
    pub(crate) paths: BTreeMap<String, PathDefinition>,
    /// Scenarios by name.
    pub(crate) scenarios: BTreeMap<String, ScenarioDefinition>,
    /// Requests of the loads, by scenario and endpoint.
    pub(crate) work: BTreeMap<(String, String), Work>,
    pub(crate) interrupt: &'a Interrupt,
    /// Directory of the processes' logs.
    pub(crate) logs: PathBuf,
    pub(crate) client: Client,
    /// Threads of the load generator; its own default if `None`.
    pub(crate) load_threads: Option<usize>,
    pub(crate) request_timeout: Duration,
    /// Scenarios whose loads are all sent by the generator's own client, so that a path and its
    /// reference have the same client: oha asks neither over TLS nor by HTTP/2 here.
    by_own_client: BTreeSet<String>,
    /// Certificates of the run, once a path has needed some.
    certificates: OnceCell<Certificates>,
    /// Whether the CPU time of processes excludes time in interrupts.
    irq_is_separate: bool,
}

/// The result of checking one target of a path, without timing.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The target, or what else was tried.
    pub(crate) asked: String,
    pub(crate) failure: Option<Failure>,
}

/// Why a trial ends early.
#[derive(Debug)]
enum TrialError {
    Failed(Failure),
    Interrupted,
}

/// Time that processes may take to stop when asked. Their own drain time is two seconds.
const STOP_GRACE: Duration = Duration::from_secs(4);

impl<'a> Live<'a> {
    pub(crate) fn new(
        toolbox: &'a Toolbox,
        builds: Option<&'a Builds>,
        selection: &Selection,
        interrupt: &'a Interrupt,
        logs: PathBuf,
    ) -> anyhow::Result<Self> {
        let paths = selection.paths.iter().map(|path| &path.definition);
        Ok(Self {
            toolbox,
            builds,
            paths: paths
                .map(|path| (path.name.clone(), path.clone()))
                .collect(),
            scenarios: selection
                .scenarios
                .iter()
                .map(|it| (it.definition.name.clone(), it.definition.clone()))
                .collect(),
            work: selection.work.clone(),
            interrupt,
            logs,
            client: Client::new().context("could not start an HTTP client")?,
            load_threads: None,
            request_timeout: Duration::from_secs(5),
            by_own_client: by_own_client(selection),
            certificates: OnceCell::new(),
            // If it is unknown, the kernel is assumed to do as most do.
            irq_is_separate: machine::irq_time_accounted().unwrap_or_default(),
        })
    }

    /// Starts the path and sends the requests of each scenario and endpoint once.
    pub(crate) fn verify(
        &mut self,
        path: &str,
        asked: &[(String, String)],
    ) -> Result<Vec<Verified>, Interrupted> {
        let definition = self.paths[path].clone();
        let mut stage = match Stage::start(self, &definition, None, path) {
            Ok(stage) => stage,
            Err(TrialError::Interrupted) => return Err(Interrupted),
            Err(TrialError::Failed(failure)) => {
                let asked = "start".to_owned();
                return Ok(vec![Verified {
                    asked,
                    failure: Some(failure),
                }]);
            }
        };
        let mut verified = Vec::new();
        for key in asked {
            let work = self.work[key].on(&definition);
            let failure = match stage.verify(self, &work) {
                Ok(()) => None,
                Err(TrialError::Interrupted) => return Err(Interrupted),
                Err(TrialError::Failed(failure)) => Some(failure),
            };
            let asked = key.1.clone();
            verified.push(Verified { asked, failure });
        }
        // It may have answered from the background.
        match stage.trouble(self.interrupt) {
            Some(TrialError::Interrupted) => return Err(Interrupted),
            Some(TrialError::Failed(failure)) => verified.push(Verified {
                asked: "end".to_owned(),
                failure: Some(failure),
            }),
            None => {}
        }
        stage.stop();
        Ok(verified)
    }

    /// Returns the certificates of the run. Makes them, unless a path had needed them before.
    fn certificates(&self) -> anyhow::Result<&Certificates> {
        if let Some(made) = self.certificates.get() {
            return Ok(made);
        }
        let made = Certificates::make()?;
        Ok(self.certificates.get_or_init(|| made))
    }

    /// Returns the time limit of one answer outside of a load. The first answer on a path is slow.
    fn answer_timeout(&self) -> Duration {
        2 * self.request_timeout
    }

    fn attempt(
        &mut self,
        trial: &mut Trial,
        on_stage: &mut dyn FnMut(usize),
    ) -> Result<(), TrialError> {
        let cell = trial.planned.cell.clone();
        let build = cell.build.zip(self.builds);
        let build = build.map(|(build, builds)| builds.of(build));
        let definition = &self.paths[&cell.path];
        let definition = build.map_or(definition, |build| build.definition(definition));
        let definition = definition.clone();
        let work = self.work_of(&cell).on(&definition);
        let kind = if trial.planned.block == 0 {
            "knee-"
        } else {
            ""
        };
        let label = format!("{kind}{:04}-{}", trial.planned.trial, cell.path);

        let mut clock = Lap::start();
        let _awake = keep_awake(cell.placement).map_err(harness_failure)?;
        let confined = confine_path(cell.placement).map_err(harness_failure)?;
        let mut stage = Stage::start(self, &definition, build, &label)?;
        drop(confined);
        trial.timing.start_ms = clock.lap_ms();
        let subject = (&definition, &work);
        let measured = self.measure(trial, &mut stage, subject, &mut clock, on_stage);
        // After a failure, the processes' logs say more than the failure does.
        let log = stage.last_lines();
        let stopped = stage.stop();
        trial.timing.stop_ms = clock.lap_ms();
        trial.warnings.extend(stopped.into_warnings());
        measured.map_err(|trouble| match trouble {
            TrialError::Failed(failure) => TrialError::Failed(Failure { log, ..failure }),
            TrialError::Interrupted => TrialError::Interrupted,
        })
    }

    fn work_of(&self, cell: &Cell) -> &Work {
        let Cell {
            scenario, endpoint, ..
        } = cell;
        &self.work[&(scenario.clone(), endpoint.clone())]
    }

    /// Returns the order of a planned trial's load.
    fn order<'o>(&self, planned: &'o PlannedTrial, work: &'o Work) -> Order<'o> {
        let definition = &self.scenarios[&planned.cell.scenario];
        Order {
            work,
            concurrency: planned.cell.concurrency,
            keep_alive: planned.cell.keep_alive,
            placement: planned.cell.placement,
            rate_rps: planned.cell.rate_rps,
            duration: Duration::from_millis(planned.duration_ms),
            requests: planned.requests,
            stages: &planned.stages,
            is_open_loop: definition.is_open_loop(),
            think_time_ms: planned.think_time_ms,
            timeout: definition
                .timeout_ms
                .map_or(self.request_timeout, Duration::from_millis),
            bodies: Bodies::After,
            by_own_client: self.by_own_client.contains(&planned.cell.scenario),
        }
    }

    fn measure(
        &mut self,
        trial: &mut Trial,
        stage: &mut Stage,
        (definition, work): (&PathDefinition, &Work),
        clock: &mut Lap,
        on_stage: &mut dyn FnMut(usize),
    ) -> Result<(), TrialError> {
        let planned = trial.planned.clone();
        let order = self.order(&planned, work);
        let fresh = self.make_ready(trial, stage, order, clock)?;

        let counters = stage.counters(self)?;
        let mut usage = stage.usage()?;
        for (usage, fresh) in usage.iter_mut().zip(&fresh) {
            usage.remember_held_of(fresh);
        }
        let strayed = stage.ended_strays();
        let machine = MachineSnapshot::take();
        trial.timing.scrape_ms = clock.lap_ms();
        let load = self.start_load(order, stage)?;
        let mut seconds = Seconds::begin(stage)?;
        let mut on_second = |stage: &mut Stage| seconds.next(stage, order.stages, on_stage);
        let on_second: Option<&mut dyn FnMut(&mut Stage)> = match order.stages.is_empty() {
            true => None,
            false => Some(&mut on_second),
        };
        let workers = load.wait(stage, &usage, self.interrupt, on_second)?;
        // Before the generator evaluates its measurements, which is not part of the load.
        let machine_after = MachineSnapshot::take();
        let usage_after = stage.usage();
        let generator_us = load.cpu_us();
        let strays = stage.warn_of_strays_since(&strayed);
        // A path that has stopped answering doesn't give its counters either. That error must not
        // hide the real one, so it is returned later.
        let counters = stage.counters_since(&counters, self);
        let load = load.result(stage, self.interrupt)?;
        trial.seconds = seconds.of;
        let loaded_ms = load.elapsed_us / 1e3;
        trial.timing.load_ms = loaded_ms;
        trial.timing.scrape_ms += clock.lap_ms() - loaded_ms;

        trial.disturbance = machine_after.since(&machine);
        // The generator's CPU time outside of the load counts as the harness's.
        let harness_us = trial.disturbance.harness_us.zip(generator_us);
        let beside_us = |all_us: f64| (all_us - load.cpu_us).max(0.0);
        trial.disturbance.harness_us = harness_us.map(|(own, all)| own + beside_us(all));
        let mut usage_after = usage_after?;
        for (after, workers) in usage_after.iter_mut().zip(&workers) {
            after.add_ended(workers.as_ref());
        }
        stage.add_usage(&usage, &usage_after, trial);
        trial.cpu_us.insert(CLIENT_ROLE.to_owned(), load.cpu_us);
        trial.warnings = validity::warnings(trial, &load, self.irq_is_separate);
        trial.warnings.extend(strays);
        let judgement = judge_trial(&load, &planned, order.timeout);
        let (body_bytes, good) = (load.body_bytes, load.good);
        trial.load = Some(load);
        judgement?;
        trial.counters = counters?;
        check_conservation(trial, definition, body_bytes)?;
        let sent_bytes = sent_bytes(work, good);
        let repeated = repeated(trial, definition, body_bytes.max(sent_bytes), good);
        trial.warnings.extend(repeated);
        trial.timing.scrape_ms += clock.lap_ms();
        stage.verify(self, work)?;
        trial.timing.verify_ms += clock.lap_ms();
        Ok(())
    }

    /// Prepares the path, checks its answers and warms it up. Returns its usage before the warm-up:
    /// a leak during the warm-up is a leak too.
    fn make_ready(
        &self,
        trial: &mut Trial,
        stage: &mut Stage,
        order: Order<'_>,
        clock: &mut Lap,
    ) -> Result<Vec<Snapshot>, TrialError> {
        if !self.scenarios[&trial.planned.cell.scenario]
            .prepare
            .is_empty()
        {
            self.prepare(trial, stage, order)?;
            trial.timing.prepare_ms = clock.lap_ms();
        }
        if !self.scenarios[&trial.planned.cell.scenario].is_cold {
            stage.verify(self, order.work)?;
        }
        trial.timing.verify_ms = clock.lap_ms();
        let fresh = stage.usage()?;
        if trial.planned.warm_up_ms > 0 {
            let duration = Duration::from_millis(trial.planned.warm_up_ms);
            let load = self.load(order.brief(duration, Bodies::During), stage)?;
            judge(&load, order.timeout)?;
            trial.timing.warm_up_ms = clock.lap_ms();
        }
        Ok(fresh)
    }

    /// Puts the preparing loads on the path, and checks that they did what they should.
    fn prepare(
        &self,
        trial: &mut Trial,
        stage: &mut Stage,
        order: Order<'_>,
    ) -> Result<(), TrialError> {
        let preparations = &self.scenarios[&trial.planned.cell.scenario].prepare;
        let path = trial.planned.cell.path.clone();
        for prepare in preparations
            .iter()
            .filter(|prepare| prepare.applies_to(&path))
        {
            let work = order.work.only(&prepare.of);
            let before = stage.counters(self)?;
            let brief = order.brief(PREPARE_MAX, Bodies::After);
            let order = Order {
                work: &work,
                concurrency: prepare.concurrency,
                rate_rps: None,
                requests: Some(prepare.requests),
                is_open_loop: false,
                think_time_ms: 0,
                ..brief
            };
            let load = self.load(order, stage)?;
            let counters = stage.counters_since(&before, self)?;
            trial.prepared.push(Prepared {
                name: prepare.name.clone(),
                requests: load.requests,
                good: load.good,
                elapsed_us: load.elapsed_us,
                counters,
            });
            judge_preparation(trial, prepare, &load)?;
        }
        Ok(())
    }
}

/// Returns the scenarios that have a path which isn't asked by plain HTTP/1.1.
fn by_own_client(selection: &Selection) -> BTreeSet<String> {
    let is_plain = |name: &String| {
        let mut paths = selection.paths.iter();
        let found = paths.find(|path| path.definition.name == *name);
        found.is_none_or(|path| path.definition.front.protocol.is_plain())
    };
    let scenarios = selection.scenarios.iter();
    let special = scenarios.filter(|scenario| !scenario.paths.iter().all(is_plain));
    special.map(|it| it.definition.name.clone()).collect()
}

/// Maximum duration of a preparing load.
const PREPARE_MAX: Duration = Duration::from_secs(600);

/// Returns the bytes of the bodies that a load sent with its correct requests.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, for a rule with a factor"
)]
fn sent_bytes(work: &Work, good: u64) -> u64 {
    (work.body_bytes_mean() * good as f64) as u64
}

/// Role under which the load generator's CPU time is reported.
const CLIENT_ROLE: &str = hopbench_analysis::metrics::CLIENT;

impl Executor for Live<'_> {
    fn execute(
        &mut self,
        planned: &PlannedTrial,
        on_stage: &mut dyn FnMut(usize),
    ) -> Result<Trial, Interrupted> {
        let mut trial = empty_record(planned.clone());
        match self.attempt(&mut trial, on_stage) {
            Ok(()) => {}
            Err(TrialError::Interrupted) => return Err(Interrupted),
            Err(TrialError::Failed(failure)) => trial.outcome = Outcome::Failed(failure),
        }
        Ok(trial)
    }
}

/// Returns the empty record of a trial.
pub(crate) fn empty_record(planned: PlannedTrial) -> Trial {
    Trial {
        planned,
        started: jiff::Timestamp::now().to_string(),
        outcome: Outcome::Ok,
        timing: Timing::default(),
        load: None,
        processes: Vec::<ProcessUsage>::new(),
        cpu_us: BTreeMap::new(),
        run_queue_wait_us: BTreeMap::new(),
        counters: BTreeMap::new(),
        disturbance: Disturbance::default(),
        warnings: Vec::new(),
        prepared: Vec::new(),
        seconds: Vec::new(),
    }
}

/// Parses the load generator's output and checks it; returns whether it is sound.
#[cfg(fuzzing)]
pub(crate) fn read_load(text: &str) -> bool {
    let planned = serde_json::json!({
        "trial": 1, "block": 1, "twin": 0, "duration_ms": 1000, "warm_up_ms": 100,
        "scenario": "x", "endpoint": "/", "path": "x", "concurrency": 8, "keep_alive": true,
        "rate_rps": text.len() % 2 * 1000,
    });
    let mut trial = empty_record(serde_json::from_value(planned).expect("a planned trial"));
    let Ok(load) = hopbench_analysis::record::Load::read(text) else {
        return false;
    };
    trial.cpu_us.insert(CLIENT_ROLE.to_owned(), load.cpu_us);
    trial.warnings = validity::warnings(&trial, &load, false);
    let sound = judge(&load, Duration::from_secs(1)).is_ok();
    trial.load = Some(load);
    sound && trial.rps().is_some()
}

/// Returns a failure that is not the path's.
fn harness_failure(error: anyhow::Error) -> TrialError {
    let (source, kind) = (Source::Harness, FailureKind::Unable);
    TrialError::Failed(Failure {
        source,
        kind,
        cause: format!("{error:#}"),
        log: Vec::new(),
    })
}

/// Measures the milliseconds between one event and the next.
struct Lap(Instant);

impl Lap {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap_ms(&mut self) -> f64 {
        let now = Instant::now();
        let elapsed = now - std::mem::replace(&mut self.0, now);
        elapsed.as_secs_f64() * 1e3
    }
}
