//! `--until`: more blocks until every interval is narrow.
//!
//! What is looked at is how wide the intervals are, never what they say, so that looking again and
//! again makes no differences of noise. It does favour blocks that happen to agree, a little:
//! `docs/METHODOLOGY.md` says how much.

use std::time::{Duration, Instant};

use hopbench_analysis::{
    estimate::CONFIDENCE,
    figures::Figure,
    record::{Cell, Manifest, Trial},
    summary::{ScenarioSummary, Summary},
};

use crate::{
    plan::{Planner, estimate_ms},
    progress::seconds,
    runner::{Added, Ended},
};

/// When to stop adding blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// How far an interval of RPS may reach to either side, in per cent of its ratio.
    pub(crate) reach_percent: f64,
    pub(crate) time_max: Duration,
}

/// Adds blocks to a run.
#[derive(Debug)]
pub(crate) struct Until<'a> {
    goal: Goal,
    planner: Planner<'a>,
    manifest: &'a Manifest,
    started: Instant,
}

/// The cell with the widest interval, and how far that reaches to either side; without end where
/// there are too few blocks for a whole interval.
struct Widest<'a> {
    cell: &'a Cell,
    reach_percent: f64,
    blocks: usize,
}

impl<'a> Until<'a> {
    pub(crate) fn new(goal: Goal, planner: Planner<'a>, manifest: &'a Manifest) -> Self {
        Self {
            goal,
            planner,
            manifest,
            started: Instant::now(),
        }
    }

    /// The next blocks, one of each scenario that has an interval which is too wide. Empty if there
    /// is none, or no time for it.
    pub(crate) fn more(&mut self, trials: &[Trial]) -> anyhow::Result<Added> {
        let summary = Summary::new(self.manifest, trials)?;
        let mut added = Added::default();
        for scenario in &summary.scenarios {
            let name = scenario.info.name.as_str();
            let Some(widest) = self.too_wide(scenario) else {
                continue;
            };
            if self.has_time_for(name, estimate_ms(&added.trials))
                && let Some(block) = self.planner.block(name)
            {
                let reason = self.progress(&widest, self.planner.block_ms(name));
                added.reasons.push(reason);
                added.trials.extend(block);
            }
        }
        Ok(added)
    }

    /// In which scenarios the goal was not reached, and why.
    pub(crate) fn missed(self, ended: &Ended) -> anyhow::Result<Vec<String>> {
        let summary = Summary::new(self.manifest, &ended.trials)?;
        let missed = summary.scenarios.iter().filter_map(|scenario| {
            let widest = self.too_wide(scenario)?;
            let limit = match ended.interrupted {
                true => "the time before the interruption".to_owned(),
                false if self.planner.is_full(&scenario.info.name) => {
                    "as many blocks as there may be".to_owned()
                }
                false => {
                    let time = seconds(self.goal.time_max.as_secs_f64());
                    format!("{time} (--max-time)")
                }
            };
            Some(self.shortfall(&widest, &limit))
        });
        Ok(missed.collect())
    }

    fn too_wide<'b>(&self, scenario: &'b ScenarioSummary<'_>) -> Option<Widest<'b>> {
        widest(scenario).filter(|widest| widest.reach_percent > self.goal.reach_percent)
    }

    fn has_time_for(&self, scenario: &str, before_ms: u64) -> bool {
        let needed_ms = self.planner.block_ms(scenario) + before_ms;
        self.started.elapsed() + Duration::from_millis(needed_ms) <= self.goal.time_max
    }

    fn progress(&self, widest: &Widest<'_>, block_ms: u64) -> String {
        let goal = self.goal.reach_percent;
        let Widest {
            cell,
            reach_percent,
            blocks,
        } = widest;
        if reach_percent.is_infinite() {
            return format!("{cell}: {blocks} block(s) are too few for an interval; one more");
        }
        // The width falls with the square root of the number of blocks.
        let needed = (*blocks as f64 * (reach_percent / goal).powi(2)).ceil();
        let more = (needed - *blocks as f64).max(1.0);
        format!(
            "{cell}: ±{reach_percent:.2} % after {blocks} blocks, ±{goal} % is the goal: about \
             {more:.0} more, {}",
            seconds(more * block_ms as f64 / 1e3)
        )
    }

    fn shortfall(&self, widest: &Widest<'_>, limit: &str) -> String {
        format!(
            "--until {} % was not reached in {limit}: the interval of {} is {} after {} block(s)",
            self.goal.reach_percent,
            widest.cell.full_name(),
            match widest.reach_percent.is_infinite() {
                true => "of too few blocks".to_owned(),
                false => format!("±{:.2} %", widest.reach_percent),
            },
            widest.blocks
        )
    }
}

fn widest<'a>(scenario: &'a ScenarioSummary<'_>) -> Option<Widest<'a>> {
    let rows = scenario.tables.iter().flat_map(|table| &table.rows);
    let intervals = rows.filter_map(|row| {
        let ratio = row.ratios[Figure::Rps]?;
        let reach_percent = match ratio.confidence >= CONFIDENCE {
            true => 100.0 * ((ratio.high / ratio.low).sqrt() - 1.0),
            false => f64::INFINITY,
        };
        Some(Widest {
            cell: &row.cell,
            reach_percent,
            blocks: ratio.blocks,
        })
    });
    intervals.max_by(|one, other| one.reach_percent.total_cmp(&other.reach_percent))
}
