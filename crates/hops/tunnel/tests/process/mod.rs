//! The set-up for tests of host and plugin as processes.

// Every test file uses only a part of this.
#![allow(dead_code, unused_imports)]

#[path = "../../../../testing/processes.rs"]
mod processes;
pub(crate) mod traffic;
pub(crate) mod tunnel;

pub(crate) use processes::*;
