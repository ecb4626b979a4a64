//! Profiles of a path's processes: perf samples their stacks, strace counts their system calls.
//! Both are optional, and a note says what could not be done.

mod perf;
mod strace;

use std::{collections::BTreeMap, fs, time::Duration};

use hopbench_analysis::record::RoleProfile;

use crate::process::table;

pub(crate) use self::{
    perf::{Perf, frequency_hz},
    strace::Strace,
};

/// Time that a tool may take to attach, and to write and read its data.
const TOOL_GRACE: Duration = Duration::from_secs(60);

/// A process that is profiled, with all that it has started.
#[derive(Clone, Debug)]
pub(crate) struct ProfileTarget {
    pub(crate) name: String,
    pub(crate) pids: Vec<u32>,
    pub(crate) role: String,
    /// Roles of threads whose names begin with the key.
    pub(crate) thread_roles: BTreeMap<String, String>,
}

impl ProfileTarget {
    /// Returns its threads by role.
    fn threads(&self) -> BTreeMap<&str, Vec<u32>> {
        let mut roles: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for pid in &self.pids {
            // A process may end meanwhile.
            let threads = fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten();
            for thread in threads.flatten() {
                let name = table::text(&thread.path().join("comm")).unwrap_or_default();
                let id = thread.file_name().to_string_lossy().parse::<u32>();
                roles
                    .entry(self.role_of(name.trim()))
                    .or_default()
                    .extend(id);
            }
        }
        roles
    }

    fn role_of(&self, thread: &str) -> &str {
        let mut prefixes = self.thread_roles.iter();
        let named = prefixes.find(|(prefix, _)| thread.starts_with(*prefix));
        named.map_or(&self.role, |(_, role)| role)
    }
}

/// Profiles by role.
pub(crate) type Roles = BTreeMap<String, RoleProfile>;
