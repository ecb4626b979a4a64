//! A machine's hardware profile: the properties that must be the same for figures to be compared.

use hopbench_analysis::{compare::memory_mib, record::Machine};
use serde::{Deserialize, Serialize};

/// The properties of a machine that decide its figures. Those that are not known are empty.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct HardwareProfile {
    cpu_model: String,
    cores: usize,
    memory_kib: u64,
    kernel: String,
    storage: String,
    /// Absent from runs of older builds.
    #[serde(default)]
    storage_kind: String,
    network: Vec<String>,
    governor: String,
    /// Absent from runs of older builds.
    #[serde(default)]
    clock_source: String,
    virtualization: String,
}

/// A property in which two machines differ.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) property: &'static str,
    pub(crate) stored: String,
    pub(crate) here: String,
}

impl From<&Machine> for HardwareProfile {
    fn from(machine: &Machine) -> Self {
        Self {
            cpu_model: machine.cpu_model.clone(),
            cores: machine.cores,
            memory_kib: machine.memory_kib,
            kernel: machine.kernel.clone(),
            storage: machine.storage.clone(),
            storage_kind: machine.storage_kind.clone(),
            network: machine.network.clone(),
            governor: machine.governor.clone(),
            clock_source: machine.clock_source.clone(),
            virtualization: machine.virtualization.clone(),
        }
    }
}

impl HardwareProfile {
    /// Returns the properties of `self`, the machine here, that are not those of `stored`.
    pub(crate) fn differences_from(&self, stored: &Self) -> Vec<Difference> {
        let both = self.properties().into_iter().zip(stored.properties());
        let differing = both.filter(|(here, stored)| here.1 != stored.1);
        let differing = differing.filter(|(_, (property, stored))| {
            let may_be_absent = ["storage kind", "clock source"].contains(property);
            !(may_be_absent && stored.is_empty())
        });
        let differences = differing.map(|((property, here), (_, stored))| Difference {
            property,
            stored,
            here,
        });
        differences.collect()
    }

    fn properties(&self) -> [(&'static str, String); 10] {
        [
            ("processor", self.cpu_model.clone()),
            ("cores", self.cores.to_string()),
            ("memory", format!("{} MiB", memory_mib(self.memory_kib))),
            ("kernel", self.kernel.clone()),
            ("storage", self.storage.clone()),
            ("storage kind", self.storage_kind.clone()),
            ("network", self.network.join(", ")),
            ("governor", self.governor.clone()),
            ("clock source", self.clock_source.clone()),
            ("virtualization", self.virtualization.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpu_model: "EPYC".to_owned(),
            cores: 2,
            memory_kib: 24_684_084,
            kernel: "6.1".to_owned(),
            storage_kind: "virtual disk".to_owned(),
            network: vec!["eth0".to_owned(), "lo".to_owned()],
            clock_source: "tsc".to_owned(),
            ..Machine::default()
        }
    }

    #[test]
    fn a_machine_is_like_itself_after_a_boot() {
        let here = HardwareProfile::from(&machine());
        let mut stored = here.clone();
        assert_eq!(here.differences_from(&stored), []);
        // The kernel reserves a slightly different amount at every boot.
        stored.memory_kib += 8;
        assert_eq!(here.differences_from(&stored), []);
    }

    #[test]
    fn every_property_that_differs_is_named() {
        let here = HardwareProfile::from(&machine());
        let other = Machine {
            cores: 96,
            memory_kib: 1 << 27,
            governor: "powersave".to_owned(),
            network: vec!["lo".to_owned()],
            ..machine()
        };
        let differences = here.differences_from(&HardwareProfile::from(&other));
        let names: Vec<&str> = differences.iter().map(|it| it.property).collect();
        assert_eq!(names, ["cores", "memory", "network", "governor"]);
        let expected = Difference {
            property: "cores",
            stored: "96".to_owned(),
            here: "2".to_owned(),
        };
        assert_eq!(differences[0], expected);
        assert_eq!(differences[3].here, "");
    }

    #[test]
    fn a_property_that_was_not_recorded_does_not_differ() {
        let here = HardwareProfile::from(&machine());
        let text = r#"{"cpu_model": "EPYC", "cores": 2, "memory_kib": 24684084, "kernel": "6.1",
            "storage": "", "network": ["eth0", "lo"], "governor": "", "virtualization": ""}"#;
        let stored = serde_json::from_str(text).expect("a profile");
        assert_eq!(here.differences_from(&stored), []);
    }
}
