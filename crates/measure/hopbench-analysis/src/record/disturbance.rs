use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Activity of the machine as a whole during the load.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Disturbance {
    /// Length of the observed window, in microseconds of wall-clock time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// Number of cores that the kernel ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u64>,
    /// Time in which cores were busy with anything but interrupts, over all cores, in microseconds,
    /// as the kernel samples it.
    pub busy_us: Option<u64>,
    /// Time in interrupts, over all cores, in microseconds. A kernel that does not account for it
    /// samples it, too, and also counts it as CPU time of the interrupted processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_us: Option<u64>,
    /// Time in work that interrupts leave for later, such as packets. It is counted as `irq_us` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softirq_us: Option<u64>,
    /// CPU time of hopbench itself and of the load generator outside of its load, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness_us: Option<f64>,
    /// Time in which cores were idle, over all cores, in microseconds, as the kernel samples it.
    pub idle_us: Option<u64>,
    /// Time that the hypervisor gave to others, over all cores, in microseconds.
    pub steal_us: u64,
    /// Time in which a runnable task waited for a core, in microseconds; `None` without pressure
    /// information.
    pub cpu_pressure_us: Option<u64>,
    /// Clock frequency of the slowest core at the load's end, as a share of its maximum; `None` if
    /// the machine doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_share: Option<f64>,
    /// Number of times that a core was slowed down because it was too hot; `None` if the machine
    /// doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
    /// Number of periods in which the CPU quota of hopbench's control group, or of one above it,
    /// stopped what is in it; `None` without such a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_stops: Option<u64>,
    /// Number of times that the kernel turned a connection away because a listen queue was full, in
    /// hopbench's network namespace (`ListenOverflows` of `/proc/net/netstat`); `None` if it
    /// doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_overflows: Option<u64>,
}

impl Disturbance {
    /// Returns the time of all cores together, in microseconds; `None` if it is not known or 0.
    pub fn machine_us(&self) -> Option<f64> {
        let all_us = (self.cores? * self.elapsed_us?) as f64;
        (all_us > 0.0).then_some(all_us)
    }
}
