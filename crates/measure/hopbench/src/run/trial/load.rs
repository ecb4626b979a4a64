//! A load on a path, from the start of the generator to its result.

use std::{
    fs,
    time::{Duration, Instant},
};

use hopbench_analysis::record::{Failure, FailureKind, Load, PlannedTrial, Source};

use super::{Live, Stage, TrialError, harness_failure};
use crate::{
    observe::usage::process_cpu_us,
    plan::selection::{ExpectedAnswer, request_body},
    process::{Child, Command, Interrupt, Output, Waited, describe_exit, wait, wait_for_output},
};

/// Time that the load generator may take beyond its load and one request's timeout, to evaluate a
/// few million records.
const LOAD_GRACE: Duration = Duration::from_secs(20);

/// When the generator compares bodies in a closed loop; at a fixed rate it compares all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bodies {
    /// Never: the path is being profiled.
    Unchecked,
    /// During the load, whose metrics are not kept.
    During,
    /// After the load, once it is told to go on.
    After,
}

/// A load under way.
#[derive(Debug)]
pub(super) struct RunningLoad {
    child: Child,
    deadline: Instant,
}

impl Live<'_> {
    /// Puts a load on the path, without a measurement. Fails if a process of the path ends
    /// meanwhile.
    pub(super) fn load(
        &self,
        planned: &PlannedTrial,
        stage: &mut Stage,
        answer: &ExpectedAnswer,
        duration: Duration,
        bodies: Bodies,
    ) -> Result<Load, TrialError> {
        let load = self.start_load(planned, stage, answer, duration, bodies)?;
        load.result(stage, self.interrupt)
    }

    pub(super) fn start_load(
        &self,
        planned: &PlannedTrial,
        stage: &Stage,
        answer: &ExpectedAnswer,
        duration: Duration,
        bodies: Bodies,
    ) -> Result<RunningLoad, TrialError> {
        let command = self
            .load_command(planned, stage, answer, duration, bodies)
            .map_err(harness_failure)?;
        let child = Child::start("load", &command, Output::Keep).map_err(harness_failure)?;
        let deadline = Instant::now() + duration + self.request_timeout + LOAD_GRACE;
        Ok(RunningLoad { child, deadline })
    }

    fn load_command(
        &self,
        planned: &PlannedTrial,
        stage: &Stage,
        answer: &ExpectedAnswer,
        duration: Duration,
        bodies: Bodies,
    ) -> anyhow::Result<Command> {
        let mut arguments = vec![
            format!("--url=http://{}{}", stage.front(), answer.target.path),
            format!("--method={}", answer.method),
            format!("--concurrency={}", planned.cell.concurrency),
            format!("--duration-ms={}", duration.as_millis()),
            format!("--timeout-ms={}", self.request_timeout.as_millis()),
            format!("--expect-status={}", answer.status),
            format!("--expect-length={}", answer.length_bytes),
            "--exit-with-stdin".to_owned(),
        ];
        if let Some(rate_rps) = planned.cell.rate_rps {
            arguments.push(format!("--rate={rate_rps}"));
        }
        if !planned.cell.keep_alive {
            arguments.push("--no-keepalive".to_owned());
        }
        let sample = match bodies {
            Bodies::Unchecked => None,
            Bodies::During => Some("during"),
            Bodies::After => Some("after-line"),
        };
        if let Some(sample) = sample {
            arguments.push(format!("--expect-sha256={}", answer.sha256));
            arguments.push(format!("--sample={sample}"));
        }
        if let Some(threads) = self.load_threads {
            arguments.push(format!("--threads={threads}"));
        }
        if answer.target.body_bytes.is_some() {
            let file = stage.directory().join("request-body");
            if !file.exists() {
                fs::write(&file, request_body(answer.target.body_bytes))?;
            }
            arguments.push(format!("--body={}", file.display()));
        }
        let program = self.toolbox.bin("hopbench-load")?;
        Ok(Command {
            program,
            arguments,
            directory: None,
            stops_with_stdin: true,
        })
    }
}

impl RunningLoad {
    /// Waits until the last request has ended. The generator then prints an empty line, before it
    /// evaluates its records.
    pub(super) fn wait(&self, stage: &mut Stage, interrupt: &Interrupt) -> Result<(), TrialError> {
        let interrupt = Some(interrupt);
        let waited = wait_for_output(&self.child, stage.children(), self.deadline, interrupt);
        self.check(waited.map_err(harness_failure)?, stage)
    }

    /// Returns the CPU time of the generator's process since it began.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        process_cpu_us(self.child.pid()).ok()
    }

    /// Waits for the generator's end; returns its result.
    pub(super) fn result(
        mut self,
        stage: &mut Stage,
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
    fn check(&self, waited: Waited, stage: &mut Stage) -> Result<(), TrialError> {
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
