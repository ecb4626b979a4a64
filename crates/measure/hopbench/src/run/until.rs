//! `--until`: more blocks until every interval is narrow.
//!
//! Only the width of the intervals counts, never what they say, so that looking repeatedly doesn't
//! turn noise into differences. It does slightly favour blocks that happen to agree:
//! `docs/METHODOLOGY.md` says how much.

use std::time::{Duration, Instant};

use hopbench_analysis::{
    ab::AbComparison,
    estimate::{CONFIDENCE, Estimate},
    metrics::Metric,
    record::{Cell, Manifest, Trial},
    report::{plural, too_few},
    summary::Summary,
};

use crate::{
    console::seconds,
    plan::{
        goal::Goal,
        planner::{Planner, estimate_ms},
    },
    run::runner::{Added, Ended},
};

/// Adds blocks to a run until the goal is reached.
#[derive(Debug)]
pub(crate) struct Until<'a> {
    goal: Goal,
    manifest: &'a Manifest,
    started: Instant,
}

/// A cell's interval and its half-width, which is infinite if there are too few blocks for a whole
/// interval.
#[derive(Debug)]
struct Interval {
    cell: Cell,
    half_width_percent: f64,
    blocks: usize,
}

impl<'a> Until<'a> {
    pub(crate) fn new(goal: Goal, manifest: &'a Manifest) -> Self {
        Self {
            goal,
            manifest,
            started: Instant::now(),
        }
    }

    /// Returns the next blocks, one for each scenario with an interval that is too wide. Empty if
    /// there is none, or no time for it.
    pub(crate) fn more(
        &self,
        planner: &mut Planner<'_>,
        trials: &[Trial],
    ) -> anyhow::Result<Added> {
        let mut added = Added::default();
        for widest in self.too_wide(trials)? {
            let name = widest.cell.scenario.as_str();
            let needed_ms = planner.block_ms(name) + estimate_ms(&added.trials);
            if self.has_time_for(needed_ms)
                && let Some(block) = planner.block(name)
            {
                let reason = self.progress(&widest, planner.block_ms(name));
                added.reasons.push(reason);
                added.trials.extend(block);
            }
        }
        Ok(added)
    }

    /// Describes in which scenarios the goal was not reached, and why.
    pub(crate) fn missed(
        &self,
        planner: &Planner<'_>,
        ended: &Ended,
    ) -> anyhow::Result<Vec<String>> {
        let too_wide = self.too_wide(&ended.trials)?;
        let missed = too_wide.iter().map(|widest| {
            let limit = match ended.interrupted {
                true => "before the interruption".to_owned(),
                false if planner.is_full(&widest.cell.scenario) => {
                    "within the maximum number of blocks".to_owned()
                }
                false => {
                    let time = seconds(self.goal.time_max.as_secs_f64());
                    format!("within {time} (--max-time)")
                }
            };
            self.shortfall(widest, &limit)
        });
        Ok(missed.collect())
    }

    /// Returns the widest interval of each scenario in which the goal is not reached.
    fn too_wide(&self, trials: &[Trial]) -> anyhow::Result<Vec<Interval>> {
        let mut widest: Vec<Interval> = Vec::new();
        for interval in intervals(self.manifest, trials)? {
            let scenario = &interval.cell.scenario;
            match widest.iter_mut().find(|one| one.cell.scenario == *scenario) {
                Some(one) if one.half_width_percent >= interval.half_width_percent => {}
                Some(one) => *one = interval,
                None => widest.push(interval),
            }
        }
        widest.retain(|interval| interval.half_width_percent > self.goal.half_width_percent);
        Ok(widest)
    }

    fn has_time_for(&self, needed_ms: u64) -> bool {
        self.started.elapsed() + Duration::from_millis(needed_ms) <= self.goal.time_max
    }

    fn progress(&self, widest: &Interval, block_ms: u64) -> String {
        let goal = self.goal.half_width_percent;
        let Interval {
            cell,
            half_width_percent,
            blocks,
        } = widest;
        if half_width_percent.is_infinite() {
            return format!(
                "{cell}: {} for an interval; adding one",
                too_few(*blocks, "block")
            );
        }
        // The width falls with the square root of the number of blocks.
        let needed = (*blocks as f64 * (half_width_percent / goal).powi(2)).ceil();
        let more = (needed - *blocks as f64).max(1.0);
        format!(
            "{cell}: ±{half_width_percent:.2} % after {blocks} blocks, the goal is ±{goal} %: \
             about {more:.0} more, {}",
            seconds(more * block_ms as f64 / 1e3)
        )
    }

    fn shortfall(&self, widest: &Interval, limit: &str) -> String {
        format!(
            "--until {} % was not reached {limit}: the interval of {} is {} after {}",
            self.goal.half_width_percent,
            widest.cell.full_name(),
            match widest.half_width_percent.is_infinite() {
                true => "still unknown".to_owned(),
                false => format!("±{:.2} %", widest.half_width_percent),
            },
            plural(widest.blocks, "block")
        )
    }
}

/// Returns the intervals of all ratios of RPS: of paths to their reference, or of build B to build
/// A.
fn intervals(manifest: &Manifest, trials: &[Trial]) -> anyhow::Result<Vec<Interval>> {
    if let Some(comparison) = AbComparison::of(manifest, trials) {
        let pairs = comparison.cells.iter();
        let ratios = pairs.map(|pair| (&pair.cell, pair.changes[Metric::Rps]));
        return Ok(ratios.filter_map(Interval::of).collect());
    }
    let summary = Summary::new(manifest, trials)?;
    let tables = summary.scenarios.iter().flat_map(|it| &it.tables);
    let rows = tables.flat_map(|table| &table.rows);
    let ratios = rows.map(|row| (&row.cell, row.ratios[Metric::Rps]));
    Ok(ratios.filter_map(Interval::of).collect())
}

impl Interval {
    fn of((cell, ratio): (&Cell, Option<Estimate>)) -> Option<Self> {
        let ratio = ratio?;
        let half_width_percent = match ratio.confidence >= CONFIDENCE {
            true => 100.0 * ((ratio.high / ratio.low).sqrt() - 1.0),
            false => f64::INFINITY,
        };
        Some(Self {
            cell: cell.clone(),
            half_width_percent,
            blocks: ratio.blocks,
        })
    }
}
