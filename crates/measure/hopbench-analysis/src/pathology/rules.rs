//! The rules of a scenario, in words.

use super::within::GROWTH_KIB_MIN;
use crate::record::PathologyRules;

impl PathologyRules {
    /// Describes what is looked for, in a few words each. Full listen queues are only looked for if
    /// a run counts them: the kernel must tell, and early runs did not.
    pub fn described(&self, counts_queues: bool) -> Vec<String> {
        let always = ["failed trials", "errors", "dropped requests"].map(str::to_owned);
        let queues = counts_queues.then(|| "full listen queues".to_owned());
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
        let limits = [queues, p99, collapse, stalls, slowdown, growth, descriptors];
        let limits = limits.into_iter().flatten();
        always.into_iter().chain(limits).chain(slower).collect()
    }
}
