//! The display of a run on a terminal: the cells measured last with their metrics so far, a bar
//! below them, and warnings above as they occur.

use std::collections::BTreeSet;

use hopbench_analysis::{
    metrics::CLIENT,
    record::{Cell, Outcome, PlannedTrial, Trial, Warning},
    statistics::median,
    summary::{Percentile, Percentiles, TrialLatency},
};
use indicatif::{ProgressBar, ProgressStyle};

/// Maximum number of cells shown; leaves room on the smallest usual terminal.
const ROWS_MAX: usize = 12;

#[derive(Debug)]
pub(super) struct LiveView {
    pub(super) bar: ProgressBar,
    /// The cell that was measured last comes last.
    cells: Vec<SoFar>,
    /// Warnings that were already shown, by cell.
    told: BTreeSet<(Cell, &'static str)>,
}

/// Metrics of a cell's trials so far.
#[derive(Debug)]
struct SoFar {
    cell: Cell,
    trials: usize,
    failed: usize,
    rps: Vec<f64>,
    p99_us: Vec<Percentile>,
    cpu_us: Vec<f64>,
    /// Requests that the path did not answer correctly.
    lost: u64,
}

impl LiveView {
    pub(super) fn new(trials: usize) -> Self {
        let style = "{msg}\n{prefix} [{bar:30}] {pos}/{len}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        let bar = ProgressBar::new(trials as u64);
        Self {
            bar: bar.with_style(style.progress_chars("=> ")),
            cells: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    pub(super) fn begin(&self, planned: &PlannedTrial, stage: usize, blocks: u32) {
        let stage = super::stage(planned, stage);
        let stage = stage.map_or_else(String::new, |stage| format!(", {stage}"));
        self.bar
            .set_prefix(format!("block {}/{blocks}{stage}", planned.block));
        self.bar.set_message(table(&self.cells, &planned.cell));
        self.bar.tick();
    }

    pub(super) fn end(&mut self, trial: &Trial) {
        self.bar.inc(1);
        if matches!(trial.outcome, Outcome::Failed(_)) {
            self.bar.println(super::line(trial));
        }
        let cell = &trial.planned.cell;
        // Short loads have too few answers for a p99 in every trial; the report says so once.
        let is_told = |it: &&Warning| !matches!(it, Warning::ShortTail { .. });
        for warning in trial.warnings.iter().filter(is_told) {
            if self.told.insert((cell.clone(), warning.kind())) {
                self.bar.println(format!("{}: {warning}", cell.full_name()));
            }
        }
        let known = self.cells.iter().position(|it| it.cell == *cell);
        let mut so_far = match known {
            Some(index) => self.cells.remove(index),
            None => SoFar::new(cell),
        };
        so_far.add(trial);
        self.cells.push(so_far);
    }
}

impl SoFar {
    fn new(cell: &Cell) -> Self {
        Self {
            cell: cell.clone(),
            trials: 0,
            failed: 0,
            rps: Vec::new(),
            p99_us: Vec::new(),
            cpu_us: Vec::new(),
            lost: 0,
        }
    }

    fn add(&mut self, trial: &Trial) {
        self.trials += 1;
        let Some(load) = trial.measured() else {
            self.failed += 1;
            return;
        };
        self.rps.extend(trial.rps());
        let latency = TrialLatency::of(trial, load).ok();
        self.p99_us.extend(latency.and_then(|it| it.p99_us));
        self.lost += load.lost();
        let servers = trial.cpu_us.iter().filter(|(role, _)| *role != CLIENT);
        let cpu_us: f64 = servers.map(|(_, cpu_us)| cpu_us).sum();
        self.cpu_us
            .extend((load.good > 0).then(|| cpu_us / load.good as f64));
    }

    fn row(&self) -> String {
        let metric = |values: &[f64], digits: usize| match median(values) {
            Some(median) => format!("{median:.digits$}"),
            None => "-".to_owned(),
        };
        let p99 = match Percentiles::of(&self.p99_us).map(|it| it.median) {
            Some(Percentile { us, is_at_least }) => {
                let at_least = if is_at_least { "≥" } else { "" };
                format!("{at_least}{:.2}", us / 1e3)
            }
            None => "-".to_owned(),
        };
        let lost = match self.lost {
            0 => String::new(),
            lost => format!("  {lost} not answered"),
        };
        let failed = match self.failed {
            0 => String::new(),
            failed => format!("  {failed} failed"),
        };
        format!(
            "{:>6}  {:>9}  {p99:>9}  {:>9}  {}{failed}{lost}",
            self.trials,
            metric(&self.rps, 0),
            metric(&self.cpu_us, 1),
            self.cell,
        )
    }
}

/// Formats the medians so far, and the cell that is being measured.
fn table(cells: &[SoFar], now: &Cell) -> String {
    let mut out = String::new();
    if !cells.is_empty() {
        out += "trials        RPS   p99 (ms)  CPU µs/rq  cell\n";
    }
    for so_far in &cells[cells.len().saturating_sub(ROWS_MAX)..] {
        out += &format!("{}\n", so_far.row());
    }
    out + &format!("measuring {}", now.full_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_measured_last_are_shown_with_their_medians() {
        let cell = |concurrency| Cell {
            scenario: "s".to_owned(),
            endpoint: "/small".to_owned(),
            path: "p".to_owned(),
            concurrency,
            keep_alive: true,
            rate_rps: None,
            build: None,
            staged: false,
            placement: Default::default(),
        };
        let mut cells: Vec<SoFar> = (1..=20).map(|it| SoFar::new(&cell(it))).collect();
        let last = &mut cells[19];
        last.trials = 4;
        last.failed = 1;
        last.rps = vec![100.0, 300.0, 200.0];
        last.p99_us = [(1_400.0, false), (1_500.0, true), (1_600.0, false)]
            .map(|(us, is_at_least)| Percentile { us, is_at_least })
            .into();
        last.lost = 3;
        let text = table(&cells, &cell(21));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + ROWS_MAX + 1);
        assert!(lines[1].ends_with("p /small c=9"), "{text}");
        assert_eq!(
            lines[ROWS_MAX],
            "     4        200      ≥1.50          -  p /small c=20  1 failed  3 not answered"
        );
        assert_eq!(lines[ROWS_MAX + 1], "measuring s p /small c=21");
    }
}
