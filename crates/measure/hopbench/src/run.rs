//! Runs a plan: builds programs, starts paths, loads and watches them, and records the results.

pub(crate) mod builds;
mod certificates;
mod holder;
pub(crate) mod knee;
pub(crate) mod measure;
pub(crate) mod profile;
pub(crate) mod progress;
pub(crate) mod repeats;
pub(crate) mod run_dir;
mod runner;
pub(crate) mod trial;
mod until;
