//! How much earlier a timer must be set, because its thread takes time to wake up.
//!
//! On an idle core of a virtual machine, a thread runs some 40 µs after its timer has fired. Every
//! request would start that much too late, and every latency, which begins when its request was
//! due, would be that much too long: as long as a whole request takes on a direct path. So the
//! timer is set earlier by the time that most wake-ups take, and a thread that wakes up too early
//! spins. No request starts early.

/// Change of the lead after a wake-up: four wake-ups follow a change of 1 µs.
const STEP_NS: u64 = 250;

/// Steps back after an early wake-up. In the long run one wake-up in four is early and spins.
const STEPS_BACK: u64 = 3;

/// Maximum lead. A longer delay means a busy machine, not a slow wake-up.
const MOST_NS: u64 = 100_000;

/// The lead is at most the interval between requests divided by this.
const INTERVAL_SHARE: u64 = 5;

#[derive(Debug)]
pub(crate) struct Lead {
    lead_ns: u64,
    most_ns: u64,
}

impl Lead {
    /// Creates the lead of a timer that fires at this interval.
    pub(crate) fn new(interval_ns: u64) -> Self {
        Self {
            lead_ns: 0,
            most_ns: MOST_NS.min(interval_ns / INTERVAL_SHARE),
        }
    }

    pub(crate) fn ns(&self) -> u64 {
        self.lead_ns
    }

    /// Takes note of a wake-up that came `took_ns` after the timer had fired. The lead converges on
    /// the first quartile of these times.
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
        // Wake-ups are faster now.
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
