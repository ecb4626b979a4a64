//! The options of ring for the machine that it runs on.

use std::{str::FromStr, time::Duration};

/// How long to look for work before sleeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinLimit {
    /// As long as it pays.
    Auto,
    /// Always this long.
    Fixed(Duration),
}

/// A mechanism of ring that makes it faster and that it works without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// None of them
    Nothing,
    /// Looking for work before sleeping
    Looking,
    /// Helper threads that write long answers on the clients' cores
    Helpers,
    /// Yielding the core after long writes
    Pausing,
}

/// The options of ring for the machine that it runs on.
#[derive(Clone, Debug, clap::Args)]
pub struct Tuning {
    /// Microseconds for which ring looks for work before it sleeps; 'auto' adapts
    #[arg(long, value_name = "US", default_value = "auto")]
    pub spin_us: SpinLimit,
    /// Number of answers due on an event loop of ring up to which it looks for work before it
    /// sleeps. With more, it sleeps and is woken for several at a time
    #[arg(long, value_name = "N", default_value_t = SPIN_ANSWERS_MAX,
        value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub spin_answers_max: u32,
    /// Mechanisms of ring to switch off, to measure what each is worth
    #[arg(
        long,
        value_enum,
        value_name = "MECHANISM",
        value_delimiter = ',',
        default_value = "nothing"
    )]
    pub ring_without: Vec<Mechanism>,
}

/// Default for the most answers due with which ring looks for work.
const SPIN_ANSWERS_MAX: u32 = 8;

impl Tuning {
    /// Returns whether ring is to use a mechanism.
    pub(crate) fn uses(&self, mechanism: Mechanism) -> bool {
        !self.ring_without.contains(&mechanism)
    }

    /// Returns how long to look for work.
    pub(crate) fn spin(&self) -> SpinLimit {
        match self.uses(Mechanism::Looking) {
            true => self.spin_us,
            false => SpinLimit::Fixed(Duration::ZERO),
        }
    }
}

impl Default for Tuning {
    /// Returns the defaults of the command line.
    fn default() -> Self {
        Self {
            spin_us: SpinLimit::Auto,
            spin_answers_max: SPIN_ANSWERS_MAX,
            ring_without: Vec::new(),
        }
    }
}

impl FromStr for SpinLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(us @ 0..=1000) => Ok(Self::Fixed(Duration::from_micros(us))),
            _ => Err("expected 'auto' or a number from 0 to 1000".to_owned()),
        }
    }
}
