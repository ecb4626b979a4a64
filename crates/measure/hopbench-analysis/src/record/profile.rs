use std::{cmp::Reverse, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cell;

/// An element of `profiles.json`: where a path's processes spent their time, under a load that is
/// not a trial.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Profile {
    /// Path, endpoint and load.
    pub cell: Cell,
    /// Samples that were requested per second of CPU time.
    pub frequency_hz: u32,
    /// Correct answers while samples were taken.
    pub requests: u64,
    /// Correct answers while system calls were counted, which makes everything slower.
    pub requests_traced: u64,
    /// Profiles by role, of all processes that were seen.
    pub roles: BTreeMap<String, RoleProfile>,
    /// Things that could not be done, with the reason and the remedy.
    pub notes: Vec<String>,
}

/// Where the processes of one role spent their time.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RoleProfile {
    /// Samples by stack: the thread and its functions, outermost first, separated by semicolons.
    /// Functions of the kernel end with `_[k]`.
    pub stacks: BTreeMap<String, u64>,
    /// Numbers of system calls by name, while they were counted.
    pub system_calls: BTreeMap<String, u64>,
}

impl RoleProfile {
    /// Returns the number of all samples.
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// Returns the samples by innermost function, the most frequent first.
    pub fn by_function(&self) -> Vec<(&str, u64)> {
        let mut functions: BTreeMap<&str, u64> = BTreeMap::new();
        for (stack, samples) in &self.stacks {
            let running = stack.rsplit(';').next().unwrap_or_default();
            *functions.entry(running).or_default() += samples;
        }
        let mut functions: Vec<_> = functions.into_iter().collect();
        functions.sort_by_key(|(name, samples)| (Reverse(*samples), *name));
        functions
    }
}
