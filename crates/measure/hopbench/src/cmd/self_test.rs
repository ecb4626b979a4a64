//! `hopbench self-test`: whether a gate works on this machine.
//!
//! Gates judge this build against itself, with and without a cost that is injected into B's origin.
//! The command counts false alarms without a cost, and detections with one.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hopbench_analysis::{
    estimate::{BLOCKS_MAX, BLOCKS_WHOLE},
    gate::{GateResult, Overall},
    report::plural,
};
use serde_json::json;

use super::{Context, columns, permute, repeat::judge, report::Report, run as runs};
use crate::{
    catalog::{Case, CatalogError, Expectation},
    cmd::{cli, exit},
    console::{say, seconds},
    plan::{
        planner::Planner,
        selection::{Overrides, Selection},
    },
    process::{EXIT_INTERRUPTED, Interrupt, Interrupted},
    run::{
        builds::{Builds, Built},
        measure::{Measured, Settings, measure},
    },
};

/// Counts of the verdicts of a case's gates.
#[derive(Debug)]
struct Tally<'a> {
    case: &'a Case,
    injected: String,
    blocks: u32,
    regressed: usize,
    inconclusive: usize,
    passed: usize,
}

/// Default number of gates per case: enough for a look. A proof takes twenty or forty.
const GATES: u16 = 3;

/// Blocks for the p50 that an injected delay is a share of. The p50 of a few blocks is itself too
/// easily off by a fifth.
const PROBE_BLOCKS: u32 = 15;

pub(super) fn run(context: &Context, options: &cli::SelfTest) -> anyhow::Result<ExitCode> {
    if let Some(run) = &options.of {
        return permute::run(context, run, options);
    }
    let interrupt = Interrupt::catch().context("could not catch signals")?;
    let cases = cases(context, &options.cases)?;
    let bench = Bench {
        context,
        options,
        interrupt: &interrupt,
    };
    let time: Duration = cases.iter().map(|case| bench.time(case)).sum();
    say(&format!(
        "{} for each of {}, about {}",
        plural(bench.gates() as usize, "gate"),
        plural(cases.len(), "case"),
        seconds(time.as_secs_f64() * f64::from(bench.gates()))
    ));
    let mut tallies = Vec::new();
    for case in &cases {
        match bench.tally(case) {
            Ok(tally) => tallies.push(tally),
            Err(error) if error.is::<Interrupted>() => {
                show(context, &tallies)?;
                say("interrupted; finished cases are kept");
                return Ok(ExitCode::from(EXIT_INTERRUPTED));
            }
            Err(error) => return Err(error),
        }
    }
    show(context, &tallies)?;
    let works = tallies.iter().all(Tally::is_right);
    Ok(ExitCode::from(if works { 0 } else { exit::FAILED }))
}

/// Returns the named cases, or all if none is named.
fn cases(context: &Context, names: &[String]) -> anyhow::Result<Vec<Case>> {
    if names.is_empty() {
        return Ok(context.catalog.cases.clone());
    }
    let cases = names.iter().map(|name| context.catalog.case(name));
    Ok(cases.collect::<Result<_, _>>()?)
}

struct Bench<'a> {
    context: &'a Context,
    options: &'a cli::SelfTest,
    interrupt: &'a Interrupt,
}

impl Bench<'_> {
    fn tally<'a>(&self, case: &'a Case) -> anyhow::Result<Tally<'a>> {
        let policy = self.context.catalog.gate(&case.policy)?;
        let own = Built::own(&self.context.toolbox);
        let mut words = case.inject.clone();
        if let Some(percent) = case.inject_delay_percent {
            let p50_us = self.p50_us(case, &own.with(case.inject_a.clone()))?;
            words.push(format!("--inject-delay-us={:.0}", p50_us * percent / 100.0));
        }
        let builds = Builds {
            a: own.with(case.inject_a.clone()),
            b: own.with(words.clone()),
        };
        let mut blocks = self.blocks(case)?;
        let mut tally = Tally {
            case,
            injected: words.join(" "),
            blocks,
            regressed: 0,
            inconclusive: 0,
            passed: 0,
        };
        for gate in 1..=self.gates() {
            let started = Instant::now();
            let measured = self.measure(case, &builds, blocks)?;
            tally.blocks = blocks;
            // The estimate before the first gate is cautious.
            let block_ms = started.elapsed().as_millis() / u128::from(blocks);
            blocks = fitting(self.time(case), block_ms).0;
            let result = judge(&policy, &measured)?;
            match result.overall() {
                Overall::Regressed => tally.regressed += 1,
                Overall::Inconclusive => tally.inconclusive += 1,
                Overall::Passed => tally.passed += 1,
            }
            say(&format!(
                "{} {gate}/{}: {}",
                case.name,
                self.gates(),
                sentence(&result)
            ));
        }
        Ok(tally)
    }

    fn gates(&self) -> u16 {
        self.options.gates.unwrap_or(GATES)
    }

    /// Returns the number of blocks that fit into a gate's time.
    fn blocks(&self, case: &Case) -> anyhow::Result<u32> {
        let selection = self.select(case, 1)?;
        let block_ms = Planner::new(&selection, 0, true, None).plan().estimate_ms;
        let time = self.time(case);
        let (blocks, is_enough) = fitting(time, block_ms.into());
        if !is_enough {
            let least = BLOCKS_WHOLE;
            let message = format!(
                "{} is too short for the {least} blocks that a gate needs; use --time with at \
                 least {}",
                seconds(time.as_secs_f64()),
                // Rounded up, so that the time named is enough.
                seconds((BLOCKS_WHOLE as f64 * block_ms as f64 / 1e3).ceil())
            );
            let file = format!("case '{}'", case.name);
            return Err(CatalogError::Invalid { file, message }.into());
        }
        Ok(blocks)
    }

    fn time(&self, case: &Case) -> Duration {
        self.options.time.unwrap_or(case.time)
    }

    fn select(&self, case: &Case, blocks: u32) -> anyhow::Result<Selection> {
        let overrides = Overrides {
            blocks: Some(blocks),
            ..Overrides::default()
        };
        let (catalog, toolbox) = (&self.context.catalog, &self.context.toolbox);
        let scenarios = std::slice::from_ref(&case.scenario);
        Selection::new(catalog, toolbox, scenarios, &overrides)
    }

    fn measure(&self, case: &Case, builds: &Builds, blocks: u32) -> anyhow::Result<Measured> {
        let settings = Settings {
            silent: true,
            ..runs::settings(self.context, &self.options.how)
        };
        let mut selection = self.select(case, blocks)?;
        builds.check(&selection)?;
        let measured = measure(
            &self.context.toolbox,
            &mut selection,
            Some(builds),
            &settings,
            self.interrupt,
        )?;
        let trials = &measured.ended.trials;
        Report::new(&measured.run_dir, &measured.manifest, trials)?.write_or_warn();
        match measured.ended.interrupted {
            true => Err(Interrupted.into()),
            false => Ok(measured),
        }
    }

    /// Returns the median p50 of the reference's trials, in microseconds.
    fn p50_us(&self, case: &Case, own: &Built) -> anyhow::Result<f64> {
        let builds = Builds {
            a: own.clone(),
            b: own.clone(),
        };
        let measured = self.measure(case, &builds, PROBE_BLOCKS)?;
        let trials = measured.ended.trials.iter();
        let mut all: Vec<f64> = trials
            .filter_map(|trial| trial.measured()?.latency.p50_us)
            .collect();
        all.sort_by(f64::total_cmp);
        let median = all.get(all.len() / 2).copied();
        median.with_context(|| format!("case '{}': nothing could be measured", case.name))
    }
}

/// Returns how many blocks fit into a time, within the limits of a gate, and whether that is
/// enough.
fn fitting(time: Duration, block_ms: u128) -> (u32, bool) {
    let [least, most] = [BLOCKS_WHOLE, BLOCKS_MAX].map(|blocks| blocks as u128);
    let room = time.as_millis() / block_ms.max(1);
    let blocks = u32::try_from(room.clamp(least, most)).unwrap_or(u32::MAX);
    (blocks, room >= least)
}

impl Tally<'_> {
    fn gates(&self) -> usize {
        self.regressed + self.inconclusive + self.passed
    }

    fn right(&self) -> usize {
        match self.case.expect {
            Expectation::Alarm => self.regressed,
            Expectation::NoAlarm => self.gates() - self.regressed,
        }
    }

    /// Returns whether enough verdicts are right. With few gates, one wrong verdict may be too
    /// many.
    fn is_right(&self) -> bool {
        self.right() as f64 >= self.gates() as f64 * self.case.right_percent_min / 100.0
    }
}

/// Formats a verdict with the first of its reasons.
fn sentence(result: &GateResult) -> String {
    let overall = result.overall();
    let mut findings = result.findings.iter();
    let first = findings.find(|finding| finding.verdict.kind() == overall);
    match first {
        Some(finding) if overall != Overall::Passed => format!(
            "{}: {}{}: {}",
            overall.name(),
            finding.guardrail,
            finding
                .cell
                .as_ref()
                .map_or_else(String::new, |cell| format!(" in {cell}")),
            finding.verdict.why()
        ),
        _ => overall.name().to_owned(),
    }
}

fn show(context: &Context, tallies: &[Tally<'_>]) -> anyhow::Result<()> {
    let heading = [
        "case",
        "injected",
        "blocks",
        "gates",
        "regressed",
        "inconclusive",
        "passed",
        "correct",
        "expected",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(tallies.iter().map(|tally| {
        let injected = match tally.injected.as_str() {
            "" => "nothing",
            words => words,
        };
        let share = 100.0 * tally.right() as f64 / tally.gates().max(1) as f64;
        let verdict = if tally.is_right() { "" } else { ": too few" };
        vec![
            tally.case.name.clone(),
            injected.to_owned(),
            tally.blocks.to_string(),
            tally.gates().to_string(),
            tally.regressed.to_string(),
            tally.inconclusive.to_string(),
            tally.passed.to_string(),
            format!("{share:.0} %"),
            format!("{} %{verdict}", tally.case.right_percent_min),
        ]
    }));
    context.print(&columns(&rows), || {
        let tallies = tallies.iter().map(|tally| {
            json!({
                "case": tally.case.name, "question": tally.case.question,
                "injected": tally.injected, "blocks": tally.blocks, "gates": tally.gates(),
                "regressed": tally.regressed, "inconclusive": tally.inconclusive,
                "passed": tally.passed, "right": tally.right(),
                "right_percent_min": tally.case.right_percent_min, "is_right": tally.is_right(),
            })
        });
        json!(tallies.collect::<Vec<_>>())
    })
}
