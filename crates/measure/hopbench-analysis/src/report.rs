//! Reports: summaries, comparisons and verdicts as text, Markdown, HTML, SVG, CSV and JSON.

pub mod ab;
pub mod chart;
pub mod compare;
pub mod csv;
pub mod exchange;
pub mod external;
pub mod gate;
pub mod history;
pub mod html;
mod lead;
pub mod lines;
pub mod markdown;
mod marks;
pub mod overview;
pub mod parts;
pub mod perf;
mod plot;
pub mod probe;
pub mod profile;
pub mod rates;
pub mod release;
pub mod sentences;
mod sheet;
mod tables;
pub mod terminal;

pub use crate::text::{plural, too_few};

use crate::text;

#[cfg(test)]
pub(crate) mod tests;
