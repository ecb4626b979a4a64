//! Shows how far a run is: a table and a bar on a terminal, plain lines elsewhere. All of it goes
//! to stderr; stdout is for results.

mod live;

use std::{io::IsTerminal, time::Instant};

use hopbench_analysis::{
    record::{Outcome, Plan, PlannedTrial, Trial},
    summary::TrialLatency,
};

use self::live::LiveView;
use crate::console::{say, seconds};

/// The progress of one run.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    planned: usize,
    done: usize,
    blocks: u32,
    view: View,
}

#[derive(Debug)]
enum View {
    LiveView(LiveView),
    Lines,
    Silent,
}

impl Progress {
    pub(crate) fn new(plan: &Plan, silent: bool) -> Self {
        let view = match (silent, std::io::stderr().is_terminal()) {
            (true, _) => View::Silent,
            (false, true) => View::LiveView(LiveView::new(plan.trials.len())),
            (false, false) => View::Lines,
        };
        Self {
            started: Instant::now(),
            planned: plan.trials.len(),
            done: 0,
            blocks: blocks(plan),
            view,
        }
    }

    /// Takes note that the plan has grown, and prints the reasons.
    pub(crate) fn extend(&mut self, plan: &Plan, reasons: &[String]) {
        for reason in reasons {
            match &self.view {
                View::LiveView(live) => live.bar.println(reason),
                View::Lines => say(reason),
                View::Silent => {}
            }
        }
        self.planned = plan.trials.len();
        self.blocks = blocks(plan);
        if let View::LiveView(live) = &self.view {
            live.bar.set_length(plan.trials.len() as u64);
        }
    }

    /// Takes note that a trial, or a stage of its load, has begun.
    pub(crate) fn begin(&self, planned: &PlannedTrial, stage: usize) {
        if let View::LiveView(live) = &self.view {
            live.begin(planned, stage, self.blocks);
        }
    }

    pub(crate) fn end(&mut self, trial: &Trial) {
        self.done += 1;
        match &mut self.view {
            View::LiveView(live) => live.end(trial),
            View::Lines => say(&format!(
                "[{}/{}] block {}/{}, {} left: {}",
                self.done,
                self.planned,
                trial.planned.block,
                self.blocks,
                time_left(self.started, self.done, self.planned),
                line(trial)
            )),
            View::Silent => {}
        }
    }

    pub(crate) fn finish(&self) {
        if let View::LiveView(live) = &self.view {
            live.bar.finish_and_clear();
        }
    }
}

/// Names a stage of a trial's load. `None` for a load that stays the same.
pub(crate) fn stage(planned: &PlannedTrial, index: usize) -> Option<String> {
    let stage = planned.stages.get(index)?;
    let (number, of) = (index + 1, planned.stages.len());
    Some(match stage.name == number.to_string() {
        true => format!("stage {number}/{of}"),
        false => format!("stage {number}/{of} '{}'", stage.name),
    })
}

fn blocks(plan: &Plan) -> u32 {
    let blocks = plan.trials.iter().map(|trial| trial.block);
    blocks.max().unwrap_or_default()
}

/// Formats the result of a trial in one line.
pub(crate) fn line(trial: &Trial) -> String {
    format!("{} {}", cell(&trial.planned), result(trial))
}

fn cell(planned: &PlannedTrial) -> String {
    let cell = &planned.cell;
    format!(
        "{} {} {} c={}",
        cell.scenario,
        cell.path,
        cell.endpoint,
        cell.load()
    )
}

fn result(trial: &Trial) -> String {
    match (&trial.outcome, trial.rps()) {
        (Outcome::Failed(failure), _) => format!("FAILED, {}: {}", failure.kind, failure.cause),
        (Outcome::Ok, Some(rps)) => {
            let load = trial.measured();
            let p99 = load.and_then(|load| TrialLatency::of(trial, load).ok()?.p99_us);
            let p99 = p99.map_or_else(String::new, |p99| {
                let at_least = if p99.is_at_least { "≥ " } else { "" };
                format!(", p99 {at_least}{:.2} ms", p99.us / 1e3)
            });
            let lost = load.map(|load| (load.lost(), load.due()));
            let lost = match lost {
                Some((lost, due)) if lost > 0 => format!(", {lost} of {due} not answered"),
                _ => String::new(),
            };
            format!("{rps:.0} RPS{p99}{lost}")
        }
        (Outcome::Ok, None) => "no load".to_owned(),
    }
}

/// Returns the time left at the pace so far.
pub(crate) fn time_left(started: Instant, done: usize, planned: usize) -> String {
    if done == 0 {
        return "unknown time".to_owned();
    }
    let per_trial = started.elapsed().as_secs_f64() / done as f64;
    seconds(per_trial * planned.saturating_sub(done) as f64)
}
