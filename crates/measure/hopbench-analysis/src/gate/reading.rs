//! The measured metric of a guardrail in a cell, and its position relative to the limit.

use std::fmt;

use super::{
    Overall,
    policy::{AbsoluteMetric, Limit},
};
use crate::{
    estimate::{
        BLOCKS_MAX, BLOCKS_WHOLE, BLOCKS_WHOLE_BETWEEN, CONFIDENCE, Group, Groups, Shift,
        logarithms, p_above, p_above_between, p_above_between_min, p_min,
    },
    text,
    told::Bound,
};

/// The values of a metric, one per block.
#[derive(Clone, Debug)]
pub(super) enum Sample {
    /// Values formed within blocks.
    Paired(Vec<f64>),
    /// Values of two runs, which share no blocks.
    Between { base: Vec<f64>, head: Vec<f64> },
}

/// The question that a sample answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) unit: Unit,
    pub(super) limit: Limit,
    /// Noise floor: how much equal things differ, as a factor or in the unit.
    pub(super) noise_floor: Option<f64>,
}

/// The unit of a metric, and the point from which its distance counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A ratio. Its distance from 1 counts.
    Change,
    /// A ratio. Its distance from the limit counts.
    Ratio,
    /// A difference, in MiB.
    MoreMib,
    /// A cell's own metric, in its own unit. Its distance from the limit counts.
    Own(AbsoluteMetric),
}

/// A metric with its confidence interval and its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Unit of the limit, the metric and the interval.
    pub unit: Unit,
    /// The limit that the metric is judged by.
    pub limit: Limit,
    /// Hodges-Lehmann estimate over the blocks.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Confidence of the interval, from 0 to 1.
    pub confidence: f64,
    /// Exact one-sided p: the probability of metrics as far beyond the limit as these or farther,
    /// if the true one is at the limit.
    pub p: f64,
    /// The smallest p that so many blocks can reach.
    pub p_min: f64,
    /// Number of blocks; with two runs, the smaller of the two numbers.
    pub blocks: usize,
    /// Fewest blocks with which an interval has [`CONFIDENCE`].
    pub blocks_needed: usize,
    /// Noise floor: how much equal things differ, as a factor or in the unit. `None` without a
    /// control.
    pub noise_floor: Option<f64>,
    /// Whether the true metric may be larger or smaller, since percentiles are lower bounds.
    pub bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The whole interval is on the bad side of the limit.
    Beyond,
    /// The limit is within the interval.
    Across,
    /// The whole interval is on the good side of the limit.
    Within,
}

impl Sample {
    /// Estimates the metric and its interval. `None` if there is no value.
    pub(super) fn read(&self, question: Question) -> Option<Reading> {
        let Question {
            unit,
            limit,
            noise_floor,
        } = question;
        let sample = self.on_scale(unit);
        let (shift, blocks_needed) = match &sample {
            Self::Paired(values) => (Shift::of(values.iter().copied())?, BLOCKS_WHOLE),
            Self::Between { base, head } => (Shift::between(base, head)?, BLOCKS_WHOLE_BETWEEN),
        };
        let [value, low, high] = match unit.is_added() {
            true => [shift.by, shift.low, shift.high],
            false => [shift.by, shift.low, shift.high].map(f64::exp),
        };
        let (p, p_min) = sample.p_beyond(unit, limit);
        Some(Reading {
            unit,
            limit,
            value,
            low,
            high,
            confidence: shift.confidence,
            p,
            p_min,
            blocks: shift.blocks,
            blocks_needed,
            noise_floor,
            bound: Bound::Exact,
        })
    }

    /// Says that the values fall into two groups, if they do: no single change speaks of both.
    pub(super) fn groups(&self) -> Option<String> {
        let groups = match self {
            Self::Paired(values) => Groups::of(values),
            Self::Between { base, head } => Groups::of(head).or_else(|| Groups::of(base)),
        }?;
        let of_group = |group: Group| format!("{} at {}", group.count, text::percent(group.median));
        Some(format!(
            "the blocks fall into two groups ({}, {}), so that a single figure would compare \
             states; find what makes the difference, as '--placement' may, or measure more blocks",
            of_group(groups.low),
            of_group(groups.high)
        ))
    }

    /// Returns the values on a scale on which differences are comparable: ratios as logarithms.
    fn on_scale(&self, unit: Unit) -> Self {
        let scale = |values: &[f64]| match unit.is_added() {
            true => values.to_vec(),
            false => logarithms(values.iter().copied()),
        };
        match self {
            Self::Paired(values) => Self::Paired(scale(values)),
            Self::Between { base, head } => Self::Between {
                base: scale(base),
                head: scale(head),
            },
        }
    }

    /// Returns the p of being beyond the limit, and the smallest p that so many blocks can reach.
    fn p_beyond(&self, unit: Unit, limit: Limit) -> (f64, f64) {
        let bound = match unit.is_added() {
            true => limit.bound(),
            false => limit.bound().ln(),
        };
        // A lower limit is an upper one for mirrored values.
        let sign = match limit {
            Limit::AtLeast(_) => -1.0,
            Limit::AtMost(_) => 1.0,
        };
        let mirrored = |values: &[f64], by: f64| -> Vec<f64> {
            values.iter().map(|value| sign * (value - by)).collect()
        };
        match self {
            Self::Paired(values) => {
                let blocks = values.len().min(BLOCKS_MAX);
                (p_above(&mirrored(values, bound)), p_min(blocks) / 2.0)
            }
            Self::Between { base, head } => (
                p_above_between(&mirrored(base, 0.0), &mirrored(head, bound)),
                p_above_between_min(base.len(), head.len()),
            ),
        }
    }
}

impl Unit {
    /// Returns whether metrics are compared as differences, not as ratios.
    fn is_added(self) -> bool {
        match self {
            // Memory may not grow at all, and there is no ratio to 0.
            Self::MoreMib | Self::Own(AbsoluteMetric::RssGrowthMib) => true,
            Self::Change | Self::Ratio | Self::Own(_) => false,
        }
    }

    /// Returns the point from which distances count: equality, or the limit.
    fn origin(self, limit: Limit) -> f64 {
        match self {
            Self::Change => 1.0,
            Self::MoreMib => 0.0,
            Self::Ratio | Self::Own(_) => limit.bound(),
        }
    }

    /// Returns the distance of a metric from the origin: a factor of at least 1, or in the unit.
    fn distance(self, metric: f64, limit: Limit) -> f64 {
        let origin = self.origin(limit);
        match self.is_added() {
            true => (metric - origin).abs(),
            false => (metric / origin).max(origin / metric),
        }
    }
}

impl Reading {
    pub(super) fn position(&self) -> Position {
        let (beyond, within) = match self.limit {
            Limit::AtLeast(bound) => (self.high < bound, self.low >= bound),
            Limit::AtMost(bound) => (self.low > bound, self.high <= bound),
        };
        match (beyond, within) {
            (true, _) => Position::Beyond,
            (_, true) => Position::Within,
            _ => Position::Across,
        }
    }

    /// Returns passed or regressed by the estimate alone, without its interval.
    pub(super) fn side(&self) -> Overall {
        let is_good = match self.limit {
            Limit::AtLeast(bound) => self.value >= bound,
            Limit::AtMost(bound) => self.value <= bound,
        };
        match is_good {
            true => Overall::Passed,
            false => Overall::Regressed,
        }
    }

    /// Returns whether the metric is a cell's own, so that no other side shares its disturbances.
    pub(super) fn is_of_one_side(&self) -> bool {
        matches!(self.unit, Unit::Own(_))
    }

    /// Returns the noise floor as a distance from equality: the factor less 1, or in the unit. 0
    /// without a control.
    pub(super) fn noise_floor_excess(&self) -> f64 {
        let origin = if self.unit.is_added() { 0.0 } else { 1.0 };
        self.noise_floor
            .map_or(0.0, |noise_floor| noise_floor - origin)
    }

    pub(super) fn has_enough_blocks(&self) -> bool {
        self.confidence >= CONFIDENCE
    }

    /// Returns whether the estimate is beyond the noise floor.
    pub(super) fn is_above_floor(&self) -> bool {
        self.is_farther_than_floor(self.value)
    }

    /// Returns whether the whole interval is beyond the noise floor, if it is beyond the limit.
    pub(super) fn is_wholly_above_floor(&self) -> bool {
        self.is_farther_than_floor(match self.limit {
            Limit::AtLeast(_) => self.high,
            Limit::AtMost(_) => self.low,
        })
    }

    fn is_farther_than_floor(&self, metric: f64) -> bool {
        let distance = self.unit.distance(metric, self.limit);
        self.noise_floor
            .is_none_or(|noise_floor| distance > noise_floor)
    }

    /// Returns whether this is a dead gate: the noise floor is more than the limit lets pass.
    pub fn is_dead(&self) -> bool {
        let allowed = self.unit.distance(self.limit.bound(), self.limit);
        let is_change = matches!(self.unit, Unit::Change | Unit::MoreMib);
        is_change
            && self
                .noise_floor
                .is_some_and(|noise_floor| noise_floor > allowed)
    }

    /// Returns whether it meets every condition of a regression but that of a small enough p.
    pub(super) fn is_alarming(&self) -> bool {
        self.has_enough_blocks()
            && self.position() == Position::Beyond
            && self.is_above_floor()
            && (!self.is_dead() || self.is_wholly_above_floor())
    }

    /// Returns whether a change is for the worse, and whether it is told apart from no change.
    /// `None` for other metrics, and if nothing changed.
    pub(super) fn direction(&self) -> Option<(bool, bool)> {
        let origin = match self.unit {
            Unit::Change | Unit::MoreMib => self.unit.origin(self.limit),
            Unit::Ratio | Unit::Own(_) => return None,
        };
        let is_worse = match self.limit {
            Limit::AtLeast(_) => self.value < origin,
            Limit::AtMost(_) => self.value > origin,
        };
        let is_apart = !(self.low..=self.high).contains(&origin) && self.is_above_floor();
        (self.value != origin).then_some((is_worse, is_apart && self.has_enough_blocks()))
    }

    /// Returns the noise floor as text, in percent or MiB. `None` without a control.
    pub fn noise_floor_text(&self) -> Option<String> {
        let noise_floor = self.noise_floor?;
        Some(match self.unit.is_added() {
            true => format!("{noise_floor:.1} MiB"),
            false => format!("{:.1} %", (noise_floor - 1.0) * 100.0),
        })
    }

    fn metric(&self, metric: f64) -> String {
        match self.unit {
            Unit::Change => format!("{:+.1}", (metric - 1.0) * 100.0),
            Unit::Ratio => format!("{metric:.3}"),
            Unit::MoreMib => format!("{metric:+.1}"),
            Unit::Own(AbsoluteMetric::P50Ms | AbsoluteMetric::P95Ms | AbsoluteMetric::P99Ms) => {
                format!("{metric:.3}")
            }
            Unit::Own(AbsoluteMetric::Rps | AbsoluteMetric::Errors) => format!("{metric:.0}"),
            Unit::Own(_) => format!("{metric:.1}"),
        }
    }
}

impl fmt::Display for Reading {
    /// Writes the metric with its interval.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value, low, high] = [self.value, self.low, self.high].map(|it| self.metric(it));
        let unit = match self.unit {
            Unit::Change => " %",
            Unit::MoreMib => " MiB",
            // A ratio has no unit, and the name of an own metric includes it.
            Unit::Ratio | Unit::Own(_) => "",
        };
        let bound = text::bound(self.bound);
        match low == high {
            true => write!(f, "{bound}{value}{unit}"),
            false => write!(f, "{bound}{value}{unit} ({low} to {high})"),
        }
    }
}
