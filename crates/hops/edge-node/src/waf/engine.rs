//! The parts of a WAF that every inspection shares.

use super::{matcher::Matcher, settings::Settings, verdict::Counters};

/// Settings, rules and counters.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) settings: Settings,
    pub(super) matcher: Matcher,
    pub(super) counters: Counters,
}

impl Engine {
    /// Begins with counters at zero.
    pub(super) fn new(settings: Settings, matcher: Matcher) -> Self {
        Self {
            settings,
            matcher,
            counters: Counters::default(),
        }
    }
}
