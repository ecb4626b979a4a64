//! Trials whose warnings make a verdict doubtful.
//!
//! A block with a doubtful trial is neither left out nor trusted: the question is asked with it and
//! without it. Others may have disturbed one side alone, and the blocks left out may be just the
//! slow ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    metrics::Metric,
    record::{Load, Trial, Warning},
    statistics::has_tail,
    summary::latency_may_be_longer,
};

/// The kind of metric that a guardrail limits. It decides which warnings matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum About {
    Rps,
    /// A percentile of the latencies, as a quantile from 0 to 1.
    Quantile(f64),
    Cpu,
    /// Memory. Others take time from a path, not memory.
    Memory,
}

/// Blocks to leave out on each side. Sides that share their blocks leave out the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Except {
    pub(super) ours: BTreeSet<u32>,
    pub(super) theirs: BTreeSet<u32>,
}

/// The doubtful trials of one guardrail in one cell.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) except: Except,
    /// Number of trials of both sides together.
    of_trials: usize,
    /// How many of them are doubtful.
    doubtful: usize,
    /// Numbers of the doubtful trials of either side, by what is wrong with them.
    trials: BTreeMap<String, [BTreeSet<u32>; 2]>,
    /// Whether the sides are two runs, whose numbers say nothing of one another.
    is_of_two_runs: bool,
    /// Whether anything is wrong with the measurement, and not just with what the machine did.
    pub(super) is_of_measuring: bool,
    /// Whether short tails are all that is wrong.
    is_of_short_tails: bool,
    /// Whether short tails are all that is wrong, and only judged trials have them.
    pub(super) is_of_our_short_tails: bool,
    /// Share of the machine that others took, as the average over all trials of each side.
    taken_shares: [f64; 2],
}

/// A reason to doubt a trial.
enum Fault {
    /// Something else took this share of the machine.
    Outside(f64),
    /// The metric may not be what it seems to be.
    Measuring,
    /// The percentile has too few answers, which makes it rather too short than too long.
    ShortTail,
}

/// Others may explain a difference between the sides if their shares of the machine differ by more
/// than this. A trial is marked from the same share on.
const ONE_SIDED_SHARE_MIN: f64 = 0.05;

/// Largest share of requests that the load generator may be late for. Beyond it, the trial has
/// measured something else.
const LATE_SHARE_MAX: f64 = 0.001;

/// Largest number of trials that a note lists by number.
const NAMED_MAX: usize = 5;

impl About {
    pub(super) fn of(metric: Metric) -> Self {
        match metric {
            Metric::Rps => Self::Rps,
            Metric::P50 => Self::Quantile(0.5),
            Metric::P95 => Self::Quantile(0.95),
            Metric::P99 => Self::Quantile(0.99),
            Metric::Cpu | Metric::CpuOverClient => Self::Cpu,
            Metric::Rss => Self::Memory,
        }
    }

    fn is_of_load(self) -> bool {
        matches!(self, Self::Rps | Self::Quantile(_))
    }
}

impl Doubt {
    /// Finds the doubtful trials of both sides. `None` if there are none.
    pub(super) fn of(sides: [&[&Trial]; 2], about: About) -> Option<Self> {
        let mut doubt = Self {
            except: Except::default(),
            of_trials: 0,
            doubtful: 0,
            trials: BTreeMap::new(),
            is_of_two_runs: false,
            is_of_measuring: false,
            is_of_short_tails: true,
            is_of_our_short_tails: false,
            taken_shares: [0.0; 2],
        };
        let mut blocks = [BTreeSet::new(), BTreeSet::new()];
        // By their addresses: both sides may have the same trials, such as the reference's, and two
        // runs have the same numbers.
        let (mut all, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
        for (side, trials) in sides.into_iter().enumerate() {
            for trial in trials {
                let address = std::ptr::from_ref::<Trial>(trial);
                all.insert(address);
                for (fault, what) in faults(trial, about) {
                    blocks[side].insert(trial.planned.block);
                    doubtful.insert(address);
                    let numbers = doubt.trials.entry(what).or_default();
                    numbers[side].insert(trial.planned.trial);
                    doubt.is_of_short_tails &= matches!(fault, Fault::ShortTail);
                    match fault {
                        Fault::Measuring | Fault::ShortTail => doubt.is_of_measuring = true,
                        Fault::Outside(share) => {
                            doubt.taken_shares[side] += share / trials.len() as f64;
                        }
                    }
                }
            }
        }
        (doubt.of_trials, doubt.doubtful) = (all.len(), doubtful.len());
        let [ours, theirs] = blocks;
        doubt.except = Except { ours, theirs };
        (!doubt.trials.is_empty()).then_some(doubt)
    }

    /// Notes whether all doubtful trials are among those judged, which are some of the first side.
    pub(super) fn judging(mut self, trials: &[&Trial]) -> Self {
        let ours: BTreeSet<u32> = trials.iter().map(|trial| trial.planned.trial).collect();
        let mut doubtful = self.trials.values().flat_map(|[ours, _]| ours);
        let is_of_ours =
            self.except.theirs.is_empty() && doubtful.all(|number| ours.contains(number));
        self.is_of_our_short_tails = self.is_of_short_tails && is_of_ours;
        self
    }

    /// Notes that the second side is another run.
    pub(super) fn of_two_runs(mut self) -> Self {
        self.is_of_two_runs = true;
        self
    }

    /// Marks each doubtful block on both sides, for sides that share their blocks.
    pub(super) fn of_shared_blocks(mut self) -> Self {
        let Except { ours, theirs } = &self.except;
        let both: BTreeSet<u32> = ours.union(theirs).copied().collect();
        self.except = Except {
            ours: both.clone(),
            theirs: both,
        };
        self
    }

    /// Returns whether others took clearly more of the machine on one side than on the other.
    pub(super) fn is_one_sided(&self) -> bool {
        let [ours, theirs] = self.taken_shares;
        (ours - theirs).abs() > ONE_SIDED_SHARE_MIN
    }

    /// Says how many trials are doubtful, why, and which.
    pub(super) fn facts(&self) -> String {
        let kinds: Vec<String> = self
            .trials
            .iter()
            .map(|(what, sides)| format!("{what} in {}", self.numbers(sides)))
            .collect();
        let verb = if self.doubtful == 1 { "is" } else { "are" };
        format!(
            "{} of {} trials {verb} doubtful: {}",
            self.doubtful,
            self.of_trials,
            kinds.join(", ")
        )
    }

    /// Names trials of both sides.
    fn numbers(&self, [ours, theirs]: &[BTreeSet<u32>; 2]) -> String {
        if !self.is_of_two_runs {
            return numbers(&(ours | theirs));
        }
        let sides = [(ours, ""), (theirs, " of the base")];
        let named = sides.iter().filter(|(trials, _)| !trials.is_empty());
        let named = named.map(|(trials, of)| numbers(trials) + of);
        named.collect::<Vec<String>>().join(" and ")
    }
}

fn numbers(trials: &BTreeSet<u32>) -> String {
    let word = match trials.len() {
        1 => "trial",
        _ => "trials",
    };
    let named: Vec<String> = trials.iter().take(NAMED_MAX).map(u32::to_string).collect();
    let more = match trials.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{word} {}{more}", named.join(", "))
}

/// Returns what is wrong with a trial for this kind of metric. Empty if the trial has no metrics.
fn faults(trial: &Trial, about: About) -> Vec<(Fault, String)> {
    let Some(load) = trial.measured() else {
        return Vec::new();
    };
    let of_warnings = trial.warnings.iter().filter_map(|warning| {
        if let Some(share) = warning.taken_share() {
            // Nothing takes memory from a path.
            let is_harmless = about == About::Memory;
            let fault = (Fault::Outside(share), warning.kind().to_owned());
            return (!is_harmless).then_some(fault);
        }
        let fault = match warning {
            Warning::GeneratorBound { .. } | Warning::LittlesLaw { .. } if about.is_of_load() => {
                Fault::Measuring
            }
            Warning::Connections { .. } => Fault::Measuring,
            Warning::Strayed { .. } if !about.is_of_load() => Fault::Measuring,
            _ => return None,
        };
        Some((fault, warning.kind().to_owned()))
    });
    let mut faults: Vec<(Fault, String)> = of_warnings.collect();
    if let About::Quantile(quantile) = about
        && !has_tail(load.latencies(), quantile)
    {
        let percentile = format!("p{:.0}", quantile * 100.0);
        faults.push((
            Fault::ShortTail,
            format!("too few answers for a {percentile}"),
        ));
    }
    if about.is_of_load() && is_late(load) {
        faults.push((Fault::Measuring, "load generator late".to_owned()));
    }
    faults
}

/// Returns whether the percentile of any of the trials may be longer than measured, by the rule of
/// the reports. It may, if its histogram can't be read.
pub(super) fn may_be_longer(trials: &[&Trial], about: About) -> bool {
    let About::Quantile(quantile) = about else {
        return false;
    };
    let mut loads = trials
        .iter()
        .filter_map(|trial| Some((trial, trial.measured()?)));
    loads.any(|(trial, load)| latency_may_be_longer(trial, load, quantile).unwrap_or(true))
}

/// Returns whether the load generator was late for more than [`LATE_SHARE_MAX`] of the requests.
pub(super) fn is_late(load: &Load) -> bool {
    let late = load.open_loop.as_ref().map_or(0, |open| open.dropped_late);
    late as f64 > LATE_SHARE_MAX * load.due() as f64
}
