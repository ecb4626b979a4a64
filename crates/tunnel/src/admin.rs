//! `/_admin/status` and `/metrics`: the counters of a running process.

use std::{sync::Arc, time::Instant};

use anyhow::bail;
use axum::{Json, Router, http::header, routing::get};
use origin::server::{Address, Listener, serve};

use crate::{
    counters::Counters,
    transport::{PeerAddress, TransportOptions},
};

/// Where the counters are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    At(Address),
    Nowhere,
}

impl AdminAddress {
    /// A Unix socket beside `--addr`, named for the program: only this user can connect.
    pub(crate) fn beside(options: &TransportOptions, program: &str) -> Self {
        Self::At(Address::Unix(match &options.addr {
            PeerAddress::Path(path) => {
                let mut name = path.clone().into_os_string();
                name.push(format!(".{program}-admin"));
                name.into()
            }
            PeerAddress::Tcp(address) => {
                std::env::temp_dir().join(format!("tunnel-{}.{program}-admin", address.port()))
            }
        }))
    }
}

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
pub(crate) fn start(
    address: &AdminAddress,
    program: &'static str,
    options: &TransportOptions,
    counters: &Arc<Counters>,
) -> anyhow::Result<()> {
    let AdminAddress::At(address) = address else {
        return Ok(());
    };
    if let Address::Unix(path) = address
        && path.as_os_str().len() >= 108
    {
        bail!(
            "--admin 'unix:{}': a socket's path may have 107 bytes",
            path.display()
        );
    }
    let listener = Listener::bind(address)?;
    let router = router(program, options, counters.clone());
    let never = std::future::pending();
    tokio::spawn(serve(listener, router, never, std::time::Duration::ZERO));
    Ok(())
}

fn router(program: &'static str, options: &TransportOptions, counters: Arc<Counters>) -> Router {
    let started = Instant::now();
    let transport = options.transport;
    let for_status = counters.clone();
    let status = move || async move {
        Json(serde_json::json!({
            "program": program,
            "version": env!("CARGO_PKG_VERSION"),
            "transport": transport,
            "pid": std::process::id(),
            "uptime_ms": u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "counters": for_status.to_json(),
        }))
    };
    let metrics = move || async move {
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            counters.to_prometheus(),
        )
    };
    Router::new()
        .route("/_admin/status", get(status))
        .route("/metrics", get(metrics))
}
