//! Summaries into text.

pub mod chart;
pub mod compare;
pub mod csv;
pub mod markdown;
pub mod perf;
pub mod terminal;

#[cfg(test)]
mod tests;
