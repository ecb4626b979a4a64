//! Trials whose warnings make a verdict doubtful.
//!
//! A block with a doubtful trial is neither left out nor taken for good: the question is asked with
//! it and without it. What was used by others may have hit one side alone, and leaving the blocks
//! out may leave out just the slow ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    figures::Figure,
    record::{Load, Trial, Warning},
    summary::has_tail,
};

/// What a guardrail is about, as far as warnings go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum About {
    Rps,
    /// Of the latencies: the quantile, from 0 to 1.
    Quantile(f64),
    Cpu,
    /// Others may take time from a process, not memory.
    Memory,
}

/// Blocks of either side. Of sides that share their blocks, the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Except {
    pub(super) ours: BTreeSet<u32>,
    pub(super) theirs: BTreeSet<u32>,
}

/// The doubtful trials of a question.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) except: Except,
    /// Trials of both sides together.
    of_trials: usize,
    /// Numbers of the doubtful ones, by what is wrong.
    trials: BTreeMap<String, BTreeSet<u32>>,
    /// Whether anything is wrong with how it was measured, and not just with what the machine did.
    pub(super) is_of_measuring: bool,
    /// Whether nothing is wrong but short tails.
    is_of_short_tails: bool,
    /// The same, and they are all of what is judged, and none of what it is judged by.
    pub(super) is_of_our_short_tails: bool,
    /// Share of the machine that others had, on average over all trials of a side.
    taken_shares: [f64; 2],
}

/// What is wrong with a trial.
enum Fault {
    /// Something else had this share of the machine.
    Outside(f64),
    /// The figure isn't what it seems to be.
    Measuring,
    /// Of a percentile of too few answers, which is rather too short than too long.
    ShortTail,
}

/// If others had more of the machine on one side than on the other, by this share of it, a
/// difference between the sides may be theirs. It is the share from which on a trial is marked.
const ONE_SIDED_SHARE_MIN: f64 = 0.05;

/// A generator that was late for more of its requests than this measured something else.
const LATE_SHARE_MAX: f64 = 0.001;

/// More trial numbers than anybody looks up.
const NAMED_MAX: usize = 5;

impl About {
    pub(super) fn of(figure: Figure) -> Self {
        match figure {
            Figure::Rps => Self::Rps,
            Figure::P50 => Self::Quantile(0.5),
            Figure::P95 => Self::Quantile(0.95),
            Figure::P99 => Self::Quantile(0.99),
            Figure::Cpu | Figure::CpuOverClient => Self::Cpu,
            Figure::Rss => Self::Memory,
        }
    }

    fn is_of_load(self) -> bool {
        matches!(self, Self::Rps | Self::Quantile(_))
    }
}

impl Doubt {
    /// `None` if no trial is doubtful.
    pub(super) fn of(sides: [&[&Trial]; 2], about: About) -> Option<Self> {
        let mut doubt = Self {
            except: Except::default(),
            of_trials: sides.iter().map(|side| side.len()).sum(),
            trials: BTreeMap::new(),
            is_of_measuring: false,
            is_of_short_tails: true,
            is_of_our_short_tails: false,
            taken_shares: [0.0; 2],
        };
        let mut blocks = [BTreeSet::new(), BTreeSet::new()];
        for (side, trials) in sides.into_iter().enumerate() {
            for trial in trials {
                for (fault, what) in faults(trial, about) {
                    blocks[side].insert(trial.planned.block);
                    let numbers = doubt.trials.entry(what).or_default();
                    numbers.insert(trial.planned.trial);
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
        let [ours, theirs] = blocks;
        doubt.except = Except { ours, theirs };
        (!doubt.trials.is_empty()).then_some(doubt)
    }

    /// The same, knowing the trials that are judged, which are some of the first side.
    pub(super) fn judging(mut self, trials: &[&Trial]) -> Self {
        let ours: BTreeSet<u32> = trials.iter().map(|trial| trial.planned.trial).collect();
        let mut doubtful = self.trials.values().flatten();
        let is_of_ours =
            self.except.theirs.is_empty() && doubtful.all(|number| ours.contains(number));
        self.is_of_our_short_tails = self.is_of_short_tails && is_of_ours;
        self
    }

    /// The same where both sides share their blocks: a block is doubtful for both.
    pub(super) fn of_shared_blocks(mut self) -> Self {
        let Except { ours, theirs } = &self.except;
        let both: BTreeSet<u32> = ours.union(theirs).copied().collect();
        self.except = Except {
            ours: both.clone(),
            theirs: both,
        };
        self
    }

    /// Whether others had clearly more of the machine on one side than on the other.
    pub(super) fn is_one_sided(&self) -> bool {
        let [ours, theirs] = self.taken_shares;
        (ours - theirs).abs() > ONE_SIDED_SHARE_MIN
    }

    /// How many trials are doubtful, why, and which.
    pub(super) fn facts(&self) -> String {
        let all: BTreeSet<u32> = self.trials.values().flatten().copied().collect();
        let kinds: Vec<String> = self
            .trials
            .iter()
            .map(|(what, trials)| format!("{what} in {}", numbers(trials)))
            .collect();
        format!(
            "{} of {} trials are doubtful: {}",
            all.len(),
            self.of_trials,
            kinds.join(", ")
        )
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

/// What is wrong with a trial that has figures, for this kind of figure.
fn faults(trial: &Trial, about: About) -> Vec<(Fault, String)> {
    let Some(load) = trial.measured() else {
        return Vec::new();
    };
    let of_warnings = trial.warnings.iter().filter_map(|warning| {
        let fault = match warning {
            Warning::Steal { share } | Warning::OtherLoad { share } => Fault::Outside(*share),
            Warning::SlowClock { share } => Fault::Outside(1.0 - share),
            Warning::Throttled { .. } => Fault::Outside(0.0),
            Warning::GeneratorBound { .. } | Warning::LittlesLaw { .. } if about.is_of_load() => {
                Fault::Measuring
            }
            Warning::Connections { .. } => Fault::Measuring,
            Warning::Strayed { .. } if !about.is_of_load() => Fault::Measuring,
            _ => return None,
        };
        let is_outside = matches!(fault, Fault::Outside(_));
        let is_harmless = is_outside && about == About::Memory;
        (!is_harmless).then(|| (fault, warning.kind().to_owned()))
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

/// How many of the trials have so many requests without an answer that the percentile lies among
/// them: the true one is longer than what was measured, by nobody knows how much.
pub(super) fn lower_bounds(trials: &[&Trial], about: About) -> usize {
    let About::Quantile(quantile) = about else {
        return 0;
    };
    let is_bound =
        |load: &&Load| load.latency.censored as f64 > (1.0 - quantile) * load.latencies() as f64;
    let loads = trials.iter().filter_map(|trial| trial.measured());
    loads.filter(is_bound).count()
}

/// Whether more requests were never asked than it takes to matter, by fault of the generator.
pub(super) fn is_late(load: &Load) -> bool {
    let late = load.open_loop.as_ref().map_or(0, |open| open.dropped_late);
    late as f64 > LATE_SHARE_MAX * load.due() as f64
}
