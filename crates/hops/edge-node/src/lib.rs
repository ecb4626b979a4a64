//! An edge node: what stands between the clients of a site and its origin.
//!
//! | module | what it is for |
//! |---|---|
//! | `config`, `plan` | what the file says, and how requests use it |
//! | `stages` | the stages that a request passes, one after another |
//! | [`path`] | the one form of a path |
//! | [`waf`] | finds attacks |
//! | [`routes`] | finds where a request goes |
//! | [`rate_limit`] | limits, counted together with other nodes |
//! | [`crdt`] | the counters, and how nodes exchange them |
//! | [`cache_key`] | the key under which an answer is cached |
//! | `tokens` | who may ask at all |
//! | `attack_log` | why requests were refused |
//! | `edge`, `fill` | answers requests, and fills the cache with what passes |
//! | `cluster` | the exchange with other nodes over HTTP |
#![forbid(unsafe_code)]

mod attack_log;
pub mod cache_key;
mod cli;
mod cluster;
mod config;
pub mod crdt;
mod edge;
mod fill;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod literals;
pub mod path;
mod plan;
pub mod rate_limit;
pub mod routes;
mod stages;
mod start;
mod state;
mod tokens;
pub mod waf;

use std::process::ExitCode;

use clap::Parser;

/// Runs the program; returns its exit code.
pub fn main() -> ExitCode {
    cli::Options::parse().run()
}
