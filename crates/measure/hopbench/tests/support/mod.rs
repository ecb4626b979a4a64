//! Helpers that the tests of hopbench share.

// Each test file uses only part of this module.
#![allow(dead_code, unused_imports)]

pub(crate) mod bench;
#[path = "../../../../testing/processes.rs"]
mod processes;
pub(crate) mod shell;

pub(crate) use processes::*;
