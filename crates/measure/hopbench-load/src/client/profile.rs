//! A level that changes over time: a rate, or a number of connections.

const SECOND_NS: f64 = 1e9;

/// Parts of a load's duration, one after the other. In each the level changes evenly.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    begin_ns: u64,
    duration_ns: u64,
    from: f64,
    to: f64,
    /// Integral of the level, per second, up to the beginning.
    before: f64,
}

impl Profile {
    /// Makes a profile of durations in milliseconds, with the levels at their beginning and end.
    pub(crate) fn new(stages: impl IntoIterator<Item = (u64, f64, f64)>) -> Self {
        let (mut begin_ns, mut before) = (0, 0.0);
        let parts = stages.into_iter().map(|(duration_ms, from, to)| {
            let part = Part {
                begin_ns,
                duration_ns: duration_ms * 1_000_000,
                from,
                to,
                before,
            };
            begin_ns += part.duration_ns;
            before = part.after();
            part
        });
        Self {
            parts: parts.collect(),
        }
    }

    pub(crate) fn duration_ms(&self) -> u64 {
        let end = self
            .parts
            .last()
            .map_or(0, |part| part.begin_ns + part.duration_ns);
        end / 1_000_000
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Returns the level at an instant; after the end, the last one.
    pub(crate) fn level(&self, at_ns: u64) -> f64 {
        let part = self.part_at(at_ns);
        part.map_or(0.0, |part| {
            let share = (at_ns - part.begin_ns) as f64 / part.duration_ns as f64;
            part.from + (part.to - part.from) * share.min(1.0)
        })
    }

    /// Returns the highest level.
    pub(crate) fn level_max(&self) -> f64 {
        let levels = self.parts.iter().flat_map(|part| [part.from, part.to]);
        levels.fold(0.0, f64::max)
    }

    /// Returns the integral of the level over the whole duration, per second, rounded down.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most a million per second for an hour"
    )]
    pub(crate) fn total(&self) -> u64 {
        let total = self.parts.last().map_or(0.0, |part| part.after());
        // Sums of products of decimal numbers are a little off.
        (total + 1e-6) as u64
    }

    /// Returns when the integral reaches a number: the time t after the beginning of a part with
    /// the level `a + b t` at which `a t + b t² / 2` is the rest. Its positive root is
    /// `2 rest / (a + √(a² + 2 b rest))`, which has no difference of nearly equal numbers.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the part"
    )]
    pub(crate) fn reached_ns(&self, number: u64) -> u64 {
        let number = number as f64;
        // A part without any level is never the one in which a number is reached.
        let after = self.parts.iter().position(|part| part.after() > number);
        let Some(part) = after
            .map(|index| &self.parts[index])
            .or_else(|| self.parts.last())
        else {
            return 0;
        };
        let rest = (number - part.before).max(0.0);
        let slope = (part.to - part.from) * SECOND_NS / part.duration_ns as f64;
        let root = (part.from * part.from + 2.0 * slope * rest).max(0.0).sqrt();
        let seconds = match part.from + root {
            0.0 => 0.0,
            sum => 2.0 * rest / sum,
        };
        let since_ns = (seconds * SECOND_NS).round() as u64;
        part.begin_ns + since_ns.min(part.duration_ns)
    }

    /// Returns the index of the part at an instant; after the end, the last one.
    pub(crate) fn index(&self, at_ns: u64) -> usize {
        let begun = self.parts.partition_point(|part| part.begin_ns <= at_ns);
        begun.saturating_sub(1)
    }

    fn part_at(&self, at_ns: u64) -> Option<&Part> {
        self.parts.get(self.index(at_ns))
    }
}

impl Part {
    fn after(&self) -> f64 {
        let seconds = self.duration_ns as f64 / SECOND_NS;
        self.before + (self.from + self.to) / 2.0 * seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reached_in_order_and_in_time() {
        let profile = Profile::new([
            (2_000, 0.0, 0.0),
            (10_000, 5.0, 50.0),
            (1_000, 0.0, 0.0),
            (5_000, 50.0, 0.0),
        ]);
        // (5 + 50) / 2 × 10 + 50 / 2 × 5
        assert_eq!(profile.total(), 400);
        let mut last_ns = 0;
        for number in 0..400 {
            let at_ns = profile.reached_ns(number);
            assert!(at_ns >= last_ns, "{number}");
            let is_pause = profile.level(at_ns) == 0.0 && profile.index(at_ns) != 3;
            assert!(!is_pause, "{number} at {at_ns}");
            last_ns = at_ns;
        }
        assert_eq!(profile.reached_ns(0), 2_000_000_000);
        assert_eq!(profile.index(2_000_000_000), 1);
        // In the last part 5 t² are left when t seconds are left.
        assert_eq!(profile.reached_ns(399) / 1_000_000, 17_552);
        assert_eq!(profile.level(7_000_000_000), 27.5);
        assert_eq!(profile.level_max(), 50.0);
    }
}
