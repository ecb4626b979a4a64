//! How much too late a timer wakes its thread, and so how much earlier to set it.
//!
//! On an idle core of a virtual machine a thread runs some 40 µs after its timer has fired. All
//! requests would start that much too late, and their latencies, which begin when they were due,
//! would be that much too long: as long as a whole request takes on a direct path. So the timer is
//! set earlier by the time that waking up mostly takes, and whoever wakes up too early waits on the
//! spot. No request starts early.

/// A microsecond is followed in four wake-ups: within a fraction of a second at any rate.
const STEP_NS: u64 = 250;

/// Of four wake-ups one is too early, and spins for what is left.
const STEPS_BACK: u64 = 3;

/// The most: what takes longer is not waking up, but a busy machine.
const MOST_NS: u64 = 100_000;

/// The share of the interval between requests that is spun away at the very most.
const INTERVAL_SHARE: u64 = 5;

#[derive(Debug)]
pub(crate) struct Lead {
    lead_ns: u64,
    most_ns: u64,
}

impl Lead {
    /// For a timer that is needed at this interval.
    pub(crate) fn new(interval_ns: u64) -> Self {
        Self {
            lead_ns: 0,
            most_ns: MOST_NS.min(interval_ns / INTERVAL_SHARE),
        }
    }

    pub(crate) fn ns(&self) -> u64 {
        self.lead_ns
    }

    /// A wake-up came so long after the timer had fired. The lead goes where a quarter of them are
    /// shorter.
    pub(crate) fn woken_after(&mut self, took_ns: u64) {
        self.lead_ns = if took_ns < self.lead_ns {
            self.lead_ns.saturating_sub(STEPS_BACK * STEP_NS)
        } else {
            (self.lead_ns + STEP_NS).min(self.most_ns)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_where_a_quarter_is_shorter() {
        let mut lead = Lead::new(1_000_000);
        // 40 to 49 µs, equally often.
        for wake_up in 0..10_000 {
            lead.woken_after(40_000 + wake_up * 7 % 10 * 1_000);
        }
        assert!((41_000..=44_000).contains(&lead.ns()), "{lead:?}");
        // The machine is awake now.
        for _ in 0..1_000 {
            lead.woken_after(2_000);
        }
        assert!((1_000..=2_500).contains(&lead.ns()), "{lead:?}");
    }

    #[test]
    fn it_has_a_limit() {
        for (interval_ns, most_ns) in [(1_000_000_000, 100_000), (50_000, 10_000), (1, 0)] {
            let mut lead = Lead::new(interval_ns);
            for _ in 0..10_000 {
                lead.woken_after(1_000_000);
            }
            assert_eq!(lead.ns(), most_ns);
        }
    }
}
