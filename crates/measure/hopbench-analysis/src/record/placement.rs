//! Where the processes of a trial run.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cores that the client and the path may use.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// All cores, as the kernel likes.
    #[default]
    Free,
    /// One core for all processes.
    SameCore,
    /// One core for the client, all others for the path.
    Split,
    /// All cores, and none of them ever sleeps: a thread that runs only where nothing else wants to
    /// spins on each, so that nothing waits for a core to wake up.
    Awake,
}

impl Placement {
    /// All placements.
    pub const ALL: [Self; 4] = [Self::Free, Self::SameCore, Self::Split, Self::Awake];

    /// Returns its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::SameCore => "same-core",
            Self::Split => "split",
            Self::Awake => "awake",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    pub(super) fn is_free(&self) -> bool {
        *self == Self::Free
    }

    /// Returns the words for it after the name of an endpoint; nothing for the usual placement.
    pub(crate) fn after_endpoint(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::SameCore => ", all on one core",
            Self::Split => ", client and path on different cores",
            Self::Awake => ", cores kept awake",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
