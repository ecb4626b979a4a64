//! A load on a path, from the start of the generator to its result.

use std::{
    fs, mem,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hopbench_analysis::record::{Failure, FailureKind, Load, Placement, Source, Stage};
use serde_json::{Value, json};

use super::{Live, TrialError, harness_failure, placed::confine_client};
use crate::{
    observe::usage::{Snapshot, process_cpu_us},
    plan::work::{PlannedRequest, Work},
    process::{Child, Command, Interrupt, Output, Waited, describe_exit, wait, wait_for_output},
};

/// Time that the load generator may take beyond its load and one request's timeout, to evaluate a
/// few million records.
const LOAD_GRACE: Duration = Duration::from_secs(20);

/// Interval at which the usage of a load in stages is read.
const SECOND: Duration = Duration::from_secs(1);

/// Longest time before the load's end at which a path is first looked at.
const LOOK_AHEAD: Duration = Duration::from_millis(200);

/// Interval of further looks at a path with new workers, until the load ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// An interval that is so many times what a look takes disturbs a load by little.
const LOOK_COSTS: u32 = 10;

/// When the generator compares bodies in a closed loop of oha. Its own client compares all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bodies {
    /// Never: the path is being profiled.
    Unchecked,
    /// During the load, whose metrics are not kept: it is sent by the generator's own client.
    During,
    /// After the load, once it is told to go on.
    After,
}

/// A load under way.
#[derive(Debug)]
pub(super) struct RunningLoad {
    child: Child,
    deadline: Instant,
    /// Shortly before the load's end, which comes this long after the generator has sent its first
    /// request. `None` if the load ends after a number of requests.
    last_look: Option<Instant>,
}

/// Everything that decides what a load does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) work: &'a Work,
    pub(super) concurrency: u32,
    pub(super) keep_alive: bool,
    pub(super) placement: Placement,
    pub(super) rate_rps: Option<u32>,
    /// Duration; for a number of requests, its limit.
    pub(super) duration: Duration,
    pub(super) requests: Option<u64>,
    pub(super) stages: &'a [Stage],
    /// Whether the levels of the stages are rates.
    pub(super) is_open_loop: bool,
    pub(super) think_time_ms: u64,
    pub(super) timeout: Duration,
    pub(super) bodies: Bodies,
    /// Whether the generator's own client must send it, even if oha could.
    pub(super) by_own_client: bool,
}

impl<'a> Order<'a> {
    /// Returns the same without what makes a load long: a number of requests, or stages.
    pub(super) fn brief(self, duration: Duration, bodies: Bodies) -> Self {
        // In stages, the rate is the highest one.
        let is_staged = !self.stages.is_empty();
        let rate_rps = self.rate_rps.filter(|_| !is_staged);
        Self {
            duration,
            bodies,
            rate_rps,
            requests: None,
            stages: &[],
            ..self
        }
    }

    /// Returns whether oha, or the open loop without a plan, can do it.
    fn is_plain(&self) -> bool {
        let is_same = self.stages.is_empty() && self.think_time_ms == 0;
        self.work.is_endpoint && self.requests.is_none() && is_same
    }
}

impl Live<'_> {
    /// Puts a load on the path, without a measurement. Fails if a process of the path ends
    /// meanwhile.
    pub(super) fn load(
        &self,
        order: Order<'_>,
        running: &mut super::Stage,
    ) -> Result<Load, TrialError> {
        let load = self.start_load(order, running)?;
        load.result(running, self.interrupt)
    }

    pub(super) fn start_load(
        &self,
        order: Order<'_>,
        running: &super::Stage,
    ) -> Result<RunningLoad, TrialError> {
        let command = self.load_command(order, running).map_err(harness_failure)?;
        let _confined = confine_client(order.placement).map_err(harness_failure)?;
        let child = Child::start("load", &command, Output::Keep).map_err(harness_failure)?;
        let end = Instant::now() + order.duration;
        Ok(RunningLoad {
            child,
            deadline: end + order.timeout + LOAD_GRACE,
            last_look: order.requests.is_none().then(|| {
                // On busy cores, a look takes a while.
                end - LOOK_AHEAD.min(order.duration / 5)
            }),
        })
    }

    fn load_command(&self, order: Order<'_>, running: &super::Stage) -> anyhow::Result<Command> {
        let request = &order.work.requests[0];
        let target = match order.is_plain() {
            true => running.target(&request.targets[0]),
            false => "/".to_owned(),
        };
        let mut arguments = running.front().options(&target);
        arguments.extend([
            format!("--concurrency={}", order.concurrency),
            format!("--duration-ms={}", order.duration.as_millis()),
            format!("--timeout-ms={}", order.timeout.as_millis()),
            "--exit-with-stdin".to_owned(),
        ]);
        arguments.extend(
            order
                .requests
                .map(|requests| format!("--requests={requests}")),
        );
        if !order.keep_alive {
            arguments.push("--no-keepalive".to_owned());
        }
        if let Some(threads) = self.load_threads {
            arguments.push(format!("--threads={threads}"));
        }
        match (order.rate_rps, order.stages.is_empty()) {
            (Some(rate_rps), true) => arguments.push(format!("--rate={rate_rps}")),
            (_, false) if order.is_open_loop => arguments.push("--open-loop".to_owned()),
            _ => {}
        }
        match order.is_plain() {
            true => arguments.extend(plain(order, running.directory())?),
            false => {
                let file = running.directory().join("load.json");
                let plan = plan(order, running)?;
                fs::write(&file, serde_json::to_vec(&plan)?)?;
                arguments.push(format!("--plan={}", file.display()));
            }
        }
        let program = self.toolbox.bin("hopbench-load")?;
        Ok(Command {
            program,
            arguments,
            stops_with_stdin: true,
            ..Command::default()
        })
    }
}

/// Returns the options of a load with one request.
fn plain(order: Order<'_>, directory: &Path) -> anyhow::Result<Vec<String>> {
    let request = &order.work.requests[0];
    let expected = &request.expect[0];
    let mut arguments = vec![
        format!("--method={}", request.method),
        format!("--expect-status={}", expected.status),
    ];
    let length_bytes = expected.length_bytes;
    arguments.extend(length_bytes.map(|length| format!("--expect-length={length}")));
    let sha256 = expected.sha256.as_ref();
    let sha256 = sha256.filter(|_| !matches!(order.bodies, Bodies::Unchecked));
    let compares_during = sha256.is_some() && matches!(order.bodies, Bodies::During);
    let by_own_client = order.by_own_client || compares_during;
    if by_own_client {
        arguments.push("--own-client".to_owned());
    }
    if let Some(sha256) = sha256 {
        arguments.push(format!("--expect-sha256={sha256}"));
        if !by_own_client {
            arguments.push("--sample=after-line".to_owned());
        }
    }
    if let Some(file) = body_file(request, 0, directory)? {
        arguments.push(format!("--body={}", file.display()));
    }
    Ok(arguments)
}

/// Returns the file that `hopbench-load --plan` reads.
fn plan(order: Order<'_>, running: &super::Stage) -> anyhow::Result<Value> {
    let directory = running.directory();
    let mut requests = Vec::new();
    for (index, request) in order.work.requests.iter().enumerate() {
        let is_compared = !matches!(order.bodies, Bodies::Unchecked);
        let expect = request.expect.iter().map(|answer| {
            json!({
                "status": answer.status, "length": answer.length_bytes,
                "sha256": answer.sha256.as_ref().filter(|_| is_compared),
                "headers": answer.headers,
            })
        });
        let targets = request.targets.iter().map(|target| running.target(target));
        let targets: Vec<_> = targets.collect();
        requests.push(json!({
            "name": request.name, "method": request.method, "targets": targets,
            "headers": request.headers, "body": body_file(request, index, directory)?,
            "weight": request.weight, "expect": expect.collect::<Vec<_>>(),
        }));
    }
    let stages = order.stages.iter();
    let stages =
        stages.map(|it| json!({"duration_ms": it.duration_ms, "from": it.from, "to": it.to}));
    Ok(json!({
        "requests": requests, "stages": stages.collect::<Vec<_>>(),
        "think_time_ms": order.think_time_ms,
    }))
}

/// Writes the body of a request, unless that is done already.
fn body_file(
    request: &PlannedRequest,
    index: usize,
    directory: &Path,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(body) = &request.body else {
        return Ok(None);
    };
    let file = directory.join(format!("request-body-{index}"));
    if !file.exists() {
        fs::write(&file, body)?;
    }
    Ok(Some(file))
}

impl RunningLoad {
    /// Waits until the last request has ended. The generator then prints an empty line, before it
    /// evaluates its records.
    ///
    /// Calls `on_second` after every second, if there is one. Returns the usage, shortly before the
    /// load's end, of the processes that have got workers since `before`: a worker that serves one
    /// connection ends with it. Workers that were there before are read at the end.
    pub(super) fn wait(
        &self,
        stage: &mut super::Stage,
        before: &[Snapshot],
        interrupt: &Interrupt,
        mut on_second: Option<&mut dyn FnMut(&mut super::Stage)>,
    ) -> Result<Vec<Option<Snapshot>>, TrialError> {
        let mut next = Instant::now() + SECOND;
        let mut last_look = self.last_look;
        let mut workers = Vec::new();
        loop {
            let until = match on_second {
                Some(_) => next.min(self.deadline),
                None => self.deadline,
            };
            let until = last_look.map_or(until, |at| at.min(until));
            let waited = wait_for_output(&self.child, stage.children(), until, Some(interrupt));
            let waited = waited.map_err(harness_failure)?;
            let now = Instant::now();
            if !matches!(waited, Waited::TimedOut) || now >= self.deadline {
                self.check(waited, stage)?;
                return Ok(workers);
            }
            if last_look.take_if(|at| now >= *at).is_some() {
                let earlier = mem::replace(&mut workers, stage.usage_with_new_workers(before));
                for (now, earlier) in workers.iter_mut().zip(earlier) {
                    match now {
                        Some(now) => now.add_ended(earlier.as_ref()),
                        None => *now = earlier,
                    }
                }
                // The load may not have begun at once.
                let cost = now.elapsed();
                let has_workers = workers.iter().any(Option::is_some);
                last_look = has_workers.then(|| now + LOOK_INTERVAL.max(LOOK_COSTS * cost));
            }
            if let Some(on_second) = on_second.as_mut().filter(|_| now >= next) {
                on_second(stage);
                next += SECOND;
            }
        }
    }

    /// Returns the CPU time of the generator's process since it began.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        process_cpu_us(self.child.pid()).ok()
    }

    /// Waits for the generator's end; returns its result.
    pub(super) fn result(
        mut self,
        stage: &mut super::Stage,
        interrupt: &Interrupt,
    ) -> Result<Load, TrialError> {
        // The usage has been read, so the generator may go on.
        self.child.tell("go on");
        let mut watched = vec![&self.child];
        watched.extend(stage.children());
        let waited = wait(&watched, self.deadline, Some(interrupt)).map_err(harness_failure)?;
        self.check(waited, stage)?;
        let (status, output) = self.child.take_output().map_err(harness_failure)?;
        let load = match status.success() {
            true => Load::read(&output).map_err(|error| format!("printed no result: {error}")),
            false => Err(describe_exit(status)),
        };
        load.map_err(|what| {
            let last = self.child.last_lines().join(" / ");
            let cause = format!("the load generator {what}: {last}");
            generator(FailureKind::Unable, cause, Vec::new())
        })
    }

    /// Checks the outcome of a wait for the generator, at index 0, and the path's processes.
    fn check(&self, waited: Waited, stage: &mut super::Stage) -> Result<(), TrialError> {
        match waited {
            Waited::Happened(0) => Ok(()),
            Waited::Happened(_) => Err(stage.crash("under load")),
            Waited::Interrupted => Err(TrialError::Interrupted),
            Waited::TimedOut => {
                let cause = "the load generator did not finish and was killed".to_owned();
                Err(generator(FailureKind::Hang, cause, self.child.last_lines()))
            }
        }
    }
}

fn generator(kind: FailureKind, cause: String, log: Vec<String>) -> TrialError {
    let source = Source::LoadGenerator;
    TrialError::Failed(Failure {
        source,
        kind,
        cause,
        log,
    })
}
