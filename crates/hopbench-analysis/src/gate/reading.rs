//! What was measured of a guardrail in a cell, and on which side of the limit it lies.

use std::fmt;

use super::{
    Overall,
    policy::{AbsoluteFigure, Limit},
};
use crate::estimate::{
    BLOCKS_MAX, BLOCKS_WHOLE, BLOCKS_WHOLE_BETWEEN, CONFIDENCE, Shift, logarithms, p_above,
    p_above_between, p_above_between_min, p_min,
};

/// Figures per block.
#[derive(Clone, Debug)]
pub(super) enum Sample {
    /// Formed within blocks.
    Paired(Vec<f64>),
    /// Of two runs, which share no blocks.
    Between { base: Vec<f64>, head: Vec<f64> },
}

/// What to ask of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) unit: Unit,
    pub(super) limit: Limit,
    /// By how much equal things are found to differ, as a factor or in the unit.
    pub(super) floor: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A ratio of which the distance from 1 counts.
    Change,
    /// A ratio of which the distance from the limit counts.
    Ratio,
    /// A difference, in MiB.
    MoreMib,
    /// A cell's own figure.
    Own(AbsoluteFigure),
}

/// A figure against its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    pub unit: Unit,
    pub limit: Limit,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub confidence: f64,
    /// Probability of figures as far beyond the limit as these or farther, if the true one is at
    /// the limit: of one side, exact.
    pub p: f64,
    /// The smallest p that so many blocks can reach.
    pub p_min: f64,
    pub blocks: usize,
    /// How many there must be for an interval that can be relied on.
    pub blocks_needed: usize,
    /// By how much equal things are found to differ: a factor, or in the unit.
    pub floor: Option<f64>,
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
    /// `None` if there is no figure.
    pub(super) fn read(&self, question: Question) -> Option<Reading> {
        let Question { unit, limit, floor } = question;
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
            floor,
        })
    }

    /// On which differences mean the same everywhere.
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

    /// And the smallest that there can be.
    fn p_beyond(&self, unit: Unit, limit: Limit) -> (f64, f64) {
        let bound = match unit.is_added() {
            true => limit.bound(),
            false => limit.bound().ln(),
        };
        // What is below a limit is above it in a mirror.
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
    /// Whether figures are differences, not ratios.
    fn is_added(self) -> bool {
        match self {
            // Memory need not grow at all.
            Self::MoreMib | Self::Own(AbsoluteFigure::RssGrowthMib) => true,
            Self::Change | Self::Ratio | Self::Own(_) => false,
        }
    }

    /// Where a figure of equal things lies.
    fn origin(self, limit: Limit) -> f64 {
        match self {
            Self::Change => 1.0,
            Self::MoreMib => 0.0,
            Self::Ratio | Self::Own(_) => limit.bound(),
        }
    }

    /// How far a figure is from where equal things are; as a factor of at least 1, or in the unit.
    fn distance(self, figure: f64, limit: Limit) -> f64 {
        let origin = self.origin(limit);
        match self.is_added() {
            true => (figure - origin).abs(),
            false => (figure / origin).max(origin / figure),
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

    /// On which side of the limit the figure itself is.
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

    /// Whether nothing was measured beside it that others would have slowed down as well.
    pub(super) fn is_of_one_side(&self) -> bool {
        matches!(self.unit, Unit::Own(_))
    }

    /// By how much equal things differ: the factor less 1, or in the unit. 0 without a control.
    pub(super) fn floor_excess(&self) -> f64 {
        let origin = if self.unit.is_added() { 0.0 } else { 1.0 };
        self.floor.map_or(0.0, |floor| floor - origin)
    }

    pub(super) fn has_enough_blocks(&self) -> bool {
        self.confidence >= CONFIDENCE
    }

    /// Whether it is farther off than equal things are found to be from one another.
    pub(super) fn is_above_floor(&self) -> bool {
        self.is_farther_than_floor(self.value)
    }

    /// The same of the whole interval, if it is beyond the limit.
    pub(super) fn is_wholly_above_floor(&self) -> bool {
        self.is_farther_than_floor(match self.limit {
            Limit::AtLeast(_) => self.high,
            Limit::AtMost(_) => self.low,
        })
    }

    fn is_farther_than_floor(&self, figure: f64) -> bool {
        let distance = self.unit.distance(figure, self.limit);
        self.floor.is_none_or(|floor| distance > floor)
    }

    /// Whether equal things differ by more than the limit lets pass.
    pub fn is_dead(&self) -> bool {
        let allowed = self.unit.distance(self.limit.bound(), self.limit);
        let is_change = matches!(self.unit, Unit::Change | Unit::MoreMib);
        is_change && self.floor.is_some_and(|floor| floor > allowed)
    }

    /// Whether it has all that a regression has, but for being improbable among so many questions.
    pub(super) fn is_alarming(&self) -> bool {
        self.has_enough_blocks()
            && self.position() == Position::Beyond
            && self.is_above_floor()
            && (!self.is_dead() || self.is_wholly_above_floor())
    }

    /// Of a change: whether it is for the worse, and whether it is told apart from none.
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

    /// The floor, for people.
    pub fn floor_text(&self) -> Option<String> {
        let floor = self.floor?;
        Some(match self.unit.is_added() {
            true => format!("{floor:.1} MiB"),
            false => format!("{:.1} %", (floor - 1.0) * 100.0),
        })
    }

    fn figure(&self, figure: f64) -> String {
        match self.unit {
            Unit::Change => format!("{:+.1}", (figure - 1.0) * 100.0),
            Unit::Ratio => format!("{figure:.3}"),
            Unit::MoreMib => format!("{figure:+.1}"),
            Unit::Own(AbsoluteFigure::P50Ms | AbsoluteFigure::P95Ms | AbsoluteFigure::P99Ms) => {
                format!("{figure:.3}")
            }
            Unit::Own(AbsoluteFigure::Rps | AbsoluteFigure::Errors) => format!("{figure:.0}"),
            Unit::Own(_) => format!("{figure:.1}"),
        }
    }
}

impl fmt::Display for Reading {
    /// The figure with its interval.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [value, low, high] = [self.value, self.low, self.high].map(|it| self.figure(it));
        let unit = match self.unit {
            Unit::Change => " %",
            Unit::MoreMib => " MiB",
            // A policy's name of the figure has the unit.
            Unit::Ratio | Unit::Own(_) => "",
        };
        match low == high {
            true => write!(f, "{value}{unit}"),
            false => write!(f, "{value}{unit} ({low} to {high})"),
        }
    }
}
