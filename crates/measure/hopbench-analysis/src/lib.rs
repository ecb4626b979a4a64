//! Computes statistics, comparisons and reports from the records of a run.
//!
//! [`record`] defines what a run directory holds. [`summary`] turns trials into metrics per cell.
//! [`metrics`] defines the metrics that are compared, and [`estimate`] gives their ratios with
//! confidence intervals. [`ab`] compares two builds, [`compare`] two runs, and [`history`] many
//! runs; [`told`] decides whether two things differ. [`pathology`] names what went wrong, [`gate`]
//! judges a run by a policy, and [`report`] writes tables. [`external`] reads what another engine
//! measured, which is shown and never compared. Everything is a function of the records:
//! nothing here starts a process, opens a socket or reads a clock. So a report can be made again
//! anywhere, from a run directory alone.
#![forbid(unsafe_code)]

pub mod ab;
pub mod compare;
pub mod estimate;
pub mod external;
pub mod gate;
pub mod history;
#[cfg(any(test, fuzzing))]
pub mod hostile;
pub mod metrics;
#[cfg(test)]
mod numbers;
pub mod pathology;
pub mod permute;
pub mod probe;
pub mod record;
pub mod repeats;
pub mod report;
mod schema;
pub mod statistics;
pub mod summary;
mod text;
pub mod timeline;
pub mod told;
