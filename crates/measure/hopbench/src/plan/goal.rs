//! When a run has enough blocks.

use std::time::Duration;

/// When to stop adding blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// Maximum half-width of an interval of RPS, in per cent of its ratio.
    pub(crate) half_width_percent: f64,
    pub(crate) time_max: Duration,
}
