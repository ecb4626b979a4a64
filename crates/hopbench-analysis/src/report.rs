//! Summaries into text.

pub mod ab;
pub mod chart;
pub mod compare;
pub mod csv;
pub mod gate;
pub mod history;
pub mod lines;
pub mod markdown;
pub mod overview;
pub mod perf;
pub mod rates;
pub mod terminal;

#[cfg(test)]
pub(crate) mod tests;
