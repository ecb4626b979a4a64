//! A proxy that records HTTP traffic, replays it, and caches what passes.
//!
//! | module | what it is for |
//! |---|---|
//! | [`rules`], [`key`], [`lookup`] | which recording answers a request |
//! | [`redact`] | what never reaches the store |
//! | [`store`] | the database, long bodies, who writes and who reads |
//! | [`recordings`] | keys and answers in memory |
//! | [`cache`] | answers that are kept by the rules of HTTP caching (RFC 9111) |
//! | `har` | import and export |
//! | [`respond`] | an answer of what is stored |

//!
//! A look-up needs neither hyper nor waiting: [`lookup::find`] takes a method, a target and fields,
//! and [`respond::ready`] returns bytes that can be written as they are.
#![forbid(unsafe_code)]

mod admin;
pub mod cache;
mod cached;
mod cli;
mod clock;
mod commands;
mod date;
mod fetch;
pub mod fields;
mod flight;
mod har;
pub mod head;
mod hop;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod json;
mod keep;
pub mod key;
pub mod lookup;
mod pieces;
mod plain;
mod received;
mod record;
pub mod recordings;
pub mod redact;
pub mod respond;
pub mod rules;
mod spool;
mod start;
mod state;
pub mod store;
pub mod stored;
mod worker;

use std::process::ExitCode;

use clap::Parser;

pub use start::{Running, Settings, start};
pub use state::{Counters, Freshness, Miss, Mode};

/// Runs the program; returns its exit code.
pub fn main() -> ExitCode {
    cli::Options::parse().run()
}
