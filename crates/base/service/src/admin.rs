//! `/_admin/status` and `/metrics`: the counters of a running process.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use anyhow::bail;
use axum::{Json, Router, http::header, routing::get};

use crate::{Address, Listener, Registry, connections::Acceptor, http};

/// Where the counters are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// At a Unix socket or a loopback address.
    At(Address),
    /// They are not served.
    Nowhere,
}

/// The program that `/_admin/status` reports.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program's name.
    pub name: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Further values of the status, by name.
    pub details: Vec<(&'static str, serde_json::Value)>,
}

impl Program {
    /// Makes a program without further values.
    pub fn new(name: &'static str, version: &'static str) -> Self {
        Self {
            name,
            version,
            details: Vec::new(),
        }
    }
}

/// Most connections at a time. More would mean a client that forgets to close them.
const CONNECTIONS_MAX: usize = 64;

impl std::str::FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::Nowhere);
        }
        match text.parse()? {
            Address::Tcp(address) if !address.ip().is_loopback() => {
                Err("expected a loopback address, 'unix:PATH' or 'none'".to_owned())
            }
            address => Ok(Self::At(address)),
        }
    }
}

/// Serves the counters in the background until the runtime ends.
///
/// # Errors
/// If the address is in use or not permitted.
pub fn start(address: &AdminAddress, program: Program, registry: Registry) -> anyhow::Result<()> {
    start_with(address, program, registry, Router::new(), Vec::new)
}

/// Serves the counters as [`start`] does, and `routes` beside them. `details` are values of the
/// status that change, by name.
///
/// # Errors
/// If the address is in use or not permitted.
pub fn start_with(
    address: &AdminAddress,
    program: Program,
    registry: Registry,
    routes: Router,
    details: impl Fn() -> Vec<(&'static str, serde_json::Value)> + Clone + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let AdminAddress::At(address) = address else {
        return Ok(());
    };
    if let Address::Unix(path) = address
        && path.as_os_str().len() >= 108
    {
        bail!(
            "--admin 'unix:{}': a socket's path can have at most 107 bytes",
            path.display()
        );
    }
    let listener = Listener::bind(address)?;
    // Its connections must not count as the program's, so it has a registry of its own.
    let acceptor = Acceptor::new(listener, CONNECTIONS_MAX, &Registry::default());
    let router = router(program, registry, details).merge(routes);
    tokio::spawn(http::serve(acceptor, router, pending(), Duration::ZERO));
    Ok(())
}

fn router(
    program: Program,
    registry: Registry,
    details: impl Fn() -> Vec<(&'static str, serde_json::Value)> + Clone + Send + Sync + 'static,
) -> Router {
    let started = Instant::now();
    let for_status = registry.clone();
    let status = move || async move {
        let mut status = serde_json::json!({
            "program": program.name,
            "version": program.version,
            "pid": std::process::id(),
            "uptime_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "counters": for_status.to_json(),
            "units": for_status.units_to_json(),
        });
        for (name, detail) in program.details.into_iter().chain(details()) {
            status[name] = detail;
        }
        Json(status)
    };
    let metrics = move || async move {
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            registry.to_prometheus(),
        )
    };
    Router::new()
        .route("/_admin/status", get(status))
        .route("/metrics", get(metrics))
}
