//! A load on a path, from the start of the generator to its result.

use std::{
    fs,
    time::{Duration, Instant},
};

use hopbench_analysis::record::{Failure, FailureKind, Load, PlannedTrial, Source};

use super::{Live, Stage, Trouble, harness};
use crate::{
    process::{Child, Command, Interrupt, Output, Waited, describe_exit, wait, wait_for_output},
    selection::{ExpectedAnswer, request_body},
    usage::process_cpu_us,
};

/// How long the load generator may take beyond its load and one request's timeout: to evaluate a
/// few million records.
const LOAD_GRACE: Duration = Duration::from_secs(20);

/// When the generator compares bodies in a closed loop; at a fixed rate it compares all.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bodies {
    /// It does not: somebody else looks at the path.
    Unchecked,
    /// Under the load, whose figures are not kept.
    During,
    /// After the load, once it is told to go on.
    After,
}

/// A load that is being put on a path.
#[derive(Debug)]
pub(super) struct RunningLoad {
    child: Child,
    deadline: Instant,
}

impl Live<'_> {
    /// Puts a load on the path whose figures are not kept; it fails if a process of the path ends
    /// meanwhile.
    pub(super) fn load(
        &self,
        planned: &PlannedTrial,
        stage: &mut Stage,
        answer: &ExpectedAnswer,
        duration: Duration,
        bodies: Bodies,
    ) -> Result<Load, Trouble> {
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
    ) -> Result<RunningLoad, Trouble> {
        let command = self
            .load_command(planned, stage, answer, duration, bodies)
            .map_err(harness)?;
        let child = Child::start("load", &command, Output::Keep).map_err(harness)?;
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
    /// Waits until the last request has ended: the generator prints an empty line then, and only
    /// then begins to evaluate.
    pub(super) fn wait(&self, stage: &mut Stage, interrupt: &Interrupt) -> Result<(), Trouble> {
        let interrupt = Some(interrupt);
        let waited = wait_for_output(&self.child, stage.children(), self.deadline, interrupt);
        self.check(waited.map_err(harness)?, stage)
    }

    /// CPU time of the generator's process since it began.
    pub(super) fn cpu_us(&self) -> Option<f64> {
        process_cpu_us(self.child.pid()).ok()
    }

    /// Waits for the generator's end; what it has measured.
    pub(super) fn result(
        mut self,
        stage: &mut Stage,
        interrupt: &Interrupt,
    ) -> Result<Load, Trouble> {
        // All that had to be read has been.
        self.child.tell("go on");
        let mut watched = vec![&self.child];
        watched.extend(stage.children());
        let waited = wait(&watched, self.deadline, Some(interrupt)).map_err(harness)?;
        self.check(waited, stage)?;
        let (status, output) = self.child.take_output().map_err(harness)?;
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

    /// What is watched is the generator, and then the path's processes.
    fn check(&self, waited: Waited, stage: &mut Stage) -> Result<(), Trouble> {
        match waited {
            Waited::Happened(0) => Ok(()),
            Waited::Happened(_) => Err(stage.crash("under load")),
            Waited::Interrupted => Err(Trouble::Interrupted),
            Waited::TimedOut => {
                let cause = "the load generator did not end; it was killed".to_owned();
                Err(generator(FailureKind::Hang, cause, self.child.last_lines()))
            }
        }
    }
}

fn generator(kind: FailureKind, cause: String, log: Vec<String>) -> Trouble {
    let source = Source::LoadGenerator;
    Trouble::Failed(Failure {
        source,
        kind,
        cause,
        log,
    })
}
