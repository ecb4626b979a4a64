//! `--until`: more blocks until every interval is narrow.
//!
//! What is looked at is how wide the intervals are, never what they say, so that looking again and
//! again makes no differences of noise. It does favour blocks that happen to agree, a little:
//! `docs/METHODOLOGY.md` says how much.

use std::time::{Duration, Instant};

use hopbench_analysis::{
    ab::Duel,
    estimate::{CONFIDENCE, Estimate},
    figures::Figure,
    record::{Cell, Manifest, Trial},
    summary::Summary,
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

/// A cell's interval, and how far that reaches to either side; without end where there are too few
/// blocks for a whole interval.
#[derive(Debug)]
struct Interval {
    cell: Cell,
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
        let mut added = Added::default();
        for widest in self.too_wide(trials)? {
            let name = widest.cell.scenario.as_str();
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
        let too_wide = self.too_wide(&ended.trials)?;
        let missed = too_wide.iter().map(|widest| {
            let limit = match ended.interrupted {
                true => "the time before the interruption".to_owned(),
                false if self.planner.is_full(&widest.cell.scenario) => {
                    "as many blocks as there may be".to_owned()
                }
                false => {
                    let time = seconds(self.goal.time_max.as_secs_f64());
                    format!("{time} (--max-time)")
                }
            };
            self.shortfall(widest, &limit)
        });
        Ok(missed.collect())
    }

    /// Of each scenario in which the goal is not reached, the widest interval.
    fn too_wide(&self, trials: &[Trial]) -> anyhow::Result<Vec<Interval>> {
        let mut widest: Vec<Interval> = Vec::new();
        for interval in intervals(self.manifest, trials)? {
            let scenario = &interval.cell.scenario;
            match widest.iter_mut().find(|one| one.cell.scenario == *scenario) {
                Some(one) if one.reach_percent >= interval.reach_percent => {}
                Some(one) => *one = interval,
                None => widest.push(interval),
            }
        }
        widest.retain(|interval| interval.reach_percent > self.goal.reach_percent);
        Ok(widest)
    }

    fn has_time_for(&self, scenario: &str, before_ms: u64) -> bool {
        let needed_ms = self.planner.block_ms(scenario) + before_ms;
        self.started.elapsed() + Duration::from_millis(needed_ms) <= self.goal.time_max
    }

    fn progress(&self, widest: &Interval, block_ms: u64) -> String {
        let goal = self.goal.reach_percent;
        let Interval {
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

    fn shortfall(&self, widest: &Interval, limit: &str) -> String {
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

/// The intervals of all ratios of RPS: of paths to their reference, or of build B to build A.
fn intervals(manifest: &Manifest, trials: &[Trial]) -> anyhow::Result<Vec<Interval>> {
    if let Some(duel) = Duel::of(manifest, trials) {
        let pairs = duel.cells.iter();
        let ratios = pairs.map(|pair| (&pair.cell, pair.changes[Figure::Rps]));
        return Ok(ratios.filter_map(Interval::of).collect());
    }
    let summary = Summary::new(manifest, trials)?;
    let tables = summary.scenarios.iter().flat_map(|it| &it.tables);
    let rows = tables.flat_map(|table| &table.rows);
    let ratios = rows.map(|row| (&row.cell, row.ratios[Figure::Rps]));
    Ok(ratios.filter_map(Interval::of).collect())
}

impl Interval {
    fn of((cell, ratio): (&Cell, Option<Estimate>)) -> Option<Self> {
        let ratio = ratio?;
        let reach_percent = match ratio.confidence >= CONFIDENCE {
            true => 100.0 * ((ratio.high / ratio.low).sqrt() - 1.0),
            false => f64::INFINITY,
        };
        Some(Self {
            cell: cell.clone(),
            reach_percent,
            blocks: ratio.blocks,
        })
    }
}
