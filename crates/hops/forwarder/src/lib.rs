//! A forwarder of TCP and HTTP ports.
#![forbid(unsafe_code)]

mod allow;
mod cli;
mod config;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod http;
mod listeners;
mod proxy_header;
mod relay;
mod reload;
mod start;
mod table;
mod watch;
mod worker;

use std::{process::ExitCode, sync::Arc};

use arc_swap::ArcSwap;
use clap::Parser;
use http_proxy::{AccessLog, ProxyCounters};
use tokio_util::sync::CancellationToken;

use crate::{cli::Options, table::Table};

service::counters! {
    /// Counters of the forwarder.
    pub(crate) struct Counters, "forwarder_" {
        /// clients accepted, on all routes
        clients_accepted: Counter, "clients";
        /// clients that were gone before they could be served
        clients_failed: Counter, "clients";
        /// clients that had to wait because max_connections was reached
        accept_stalls: Counter, "stalls";
        /// TCP clients whose target could not be reached
        targets_missing: Counter, "clients";
        /// TCP connections that one side reset
        connections_failed: Counter, "connections";
        /// half-closed TCP connections on which nothing moved for half_closed_seconds
        half_closed_reaped: Counter, "connections";
        /// TCP connections on which nothing moved for idle_seconds
        idle_reaped: Counter, "connections";
        /// reads that had to copy, as no pipe could be made; counted when a connection ends
        pipes_missing: Counter, "reads";
        /// TCP bytes that went through a pipe, counted when a connection ends
        bytes_spliced: Counter, "bytes";
        /// clients refused because they sent no valid header of the PROXY protocol
        proxy_headers_refused: Counter, "clients";
        /// TCP bytes from clients to targets, counted when a connection ends
        bytes_up: Counter, "bytes";
        /// TCP bytes from targets to clients, counted when a connection ends
        bytes_down: Counter, "bytes";
        /// times a new configuration was taken
        reloads: Counter, "configurations";
        /// times a new configuration was refused
        reloads_refused: Counter, "configurations";
    }
}

/// State that all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) http_counters: Arc<ProxyCounters>,
    pub(crate) log: Arc<AccessLog>,
    /// Cancelled when the process is told to stop.
    pub(crate) stop: CancellationToken,
}

/// Runs the program; returns its exit code.
pub fn main() -> ExitCode {
    Options::parse().run()
}
