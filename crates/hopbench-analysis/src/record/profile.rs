use std::{cmp::Reverse, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cell;

/// An element of `profiles.json`: where a path's processes spent their time under a load that was
/// not measured.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
pub struct Profile {
    pub cell: Cell,
    /// Samples that were asked for per second of CPU time.
    pub frequency_hz: u32,
    /// Right answers while samples were taken.
    pub requests: u64,
    /// Right answers while system calls were counted, which makes everything slower.
    pub requests_traced: u64,
    /// Of whoever was seen, by role.
    pub roles: BTreeMap<String, RoleProfile>,
    /// What could not be done, why, and what to do.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RoleProfile {
    /// Samples by stack: thread and functions, the outermost first, semicolons between. What ends
    /// with `_[k]` is the kernel's.
    pub stacks: BTreeMap<String, u64>,
    /// System calls while they were counted, by name.
    pub system_calls: BTreeMap<String, u64>,
}

impl RoleProfile {
    pub fn samples(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// Samples by the function that was running itself, the most frequent first.
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
