use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What else the machine did during the load.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
pub struct Disturbance {
    /// How long the machine was looked at, by the clock on the wall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// Cores that the kernel ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u64>,
    /// Time in which cores ran something but interrupts, over all cores, in microseconds, as the
    /// kernel samples it.
    pub busy_us: Option<u64>,
    /// The same of interrupts, and of what they leave for later, such as packets. A kernel that
    /// does not account for it samples this, too, and counts it as the CPU time of whatever was
    /// interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irq_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softirq_us: Option<u64>,
    /// CPU time of hopbench itself, and of the load generator before and after its load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness_us: Option<f64>,
    /// The same of doing nothing.
    pub idle_us: Option<u64>,
    /// Time the hypervisor gave to others, over all cores, in microseconds.
    pub steal_us: u64,
    /// Time in which a runnable task waited for a core; `None` without pressure information.
    pub cpu_pressure_us: Option<u64>,
    /// The slowest core's clock at the load's end, as a share of its fastest; `None` if the machine
    /// doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_share: Option<f64>,
    /// How often a core was slowed down because it was too hot; `None` if the machine doesn't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
}

impl Disturbance {
    /// The time of all cores together.
    pub fn machine_us(&self) -> Option<f64> {
        let all_us = (self.cores? * self.elapsed_us?) as f64;
        (all_us > 0.0).then_some(all_us)
    }
}
