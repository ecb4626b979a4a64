//! The rules of a scenario, in words.

use super::within::GROWTH_KIB_MIN;
use crate::record::PathologyRules;

impl PathologyRules {
    /// Describes what is looked for, in a few words each.
    pub fn described(&self) -> Vec<String> {
        let always = [
            "failed trials",
            "errors",
            "dropped requests",
            "full listen queues",
        ];
        let always = always.map(str::to_owned);
        let p99 = self.p99_over_reference;
        let p99 = p99.map(|limit| format!("p99 over {limit} times the reference's"));
        let collapse = self.rps_collapse;
        let collapse =
            collapse.map(|limit| format!("RPS below {limit} of that at fewer connections"));
        let stalls = self
            .stalls
            .then(|| "answers that wait as long as an acknowledgement is delayed".to_owned());
        let slowdown = self.slowdown;
        let slowdown = slowdown
            .map(|limit| format!("RPS that fall below {limit} of their beginning within a load"));
        let growth = self.growth_kib_per_request;
        let growth = growth.map(|limit| {
            format!(
                "memory that grows by {limit} KiB for each answer, and by {:.0} MiB at least",
                GROWTH_KIB_MIN / 1024.0
            )
        });
        let descriptors = self.growth_descriptors_per_request;
        let descriptors =
            descriptors.map(|limit| format!("descriptors that stay open, {limit} for each answer"));
        let slower = self.slower.iter();
        let slower = slower.map(|rule| format!("'{}' slower than '{}'", rule.path, rule.than));
        let limits = [p99, collapse, stalls, slowdown, growth, descriptors];
        let limits = limits.into_iter().flatten();
        always.into_iter().chain(limits).chain(slower).collect()
    }
}
