//! Records in; statistics, comparisons and reports out.
//!
//! [`record`] is what a run directory holds. [`summary`] turns trials into figures per cell;
//! [`figures`] are those that are compared, by [`estimate`]: between two builds by [`ab`], between
//! runs by [`compare`], over many runs by [`history`]; [`told`] is whether two things differ.
//! [`pathology`] names what went wrong, [`report`] writes tables. Everything is a function of the
//! records: nothing here starts a process, opens a socket or reads a clock, so that a report can be
//! made again, anywhere, from a run directory alone.
#![forbid(unsafe_code)]

pub mod ab;
pub mod compare;
pub mod deal;
pub mod estimate;
pub mod figures;
pub mod gate;
pub mod history;
#[cfg(any(test, fuzzing))]
pub mod hostile;
#[cfg(test)]
mod numbers;
pub mod pathology;
pub mod record;
pub mod report;
pub mod statistics;
pub mod summary;
pub mod told;
