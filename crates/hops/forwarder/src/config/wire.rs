//! The configuration file as it is written.

use std::net::IpAddr;

use serde::Deserialize;
use service::mistake::{Mistake, ensure};

use crate::relay::Carry;

/// A configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireConfig {
    /// Address on which every route listens.
    #[serde(default = "all_addresses")]
    pub(crate) listen_addr: IpAddr,
    /// Port of the main route. There is a main route if this is written, or if no other route is
    /// enabled.
    pub(crate) listen_port: Option<u16>,
    /// Host of the main route's target, and of others that name none.
    #[serde(default = "this_machine")]
    pub(crate) target_addr: String,
    /// Port of the main route's target, and of others that name none.
    #[serde(default = "target_port")]
    pub(crate) target_port: u16,
    /// Largest number of clients connected at a time, on all routes together.
    #[serde(default = "max_connections")]
    pub(crate) max_connections: usize,
    /// Size of the buffer that each worker reads TCP into, and of those of each HTTP connection, in
    /// KiB.
    #[serde(default = "buffer_size_kb")]
    pub(crate) buffer_size_kb: usize,
    /// How bytes are carried on TCP routes that don't say.
    #[serde(default)]
    pub(crate) relay: Carry,
    /// TCP: seconds in which nothing may move once one side has closed its direction; 0 is no
    /// limit.
    #[serde(default = "half_closed_seconds")]
    pub(crate) half_closed_seconds: u64,
    /// TCP: seconds in which nothing may move in any case; 0 is no limit.
    #[serde(default)]
    pub(crate) idle_seconds: u64,
    /// Whether HTTP requests are logged at all.
    #[serde(default = "yes")]
    pub(crate) log_requests: bool,
    #[serde(default)]
    pub(crate) log_format: WireFormat,
    #[serde(default)]
    pub(crate) log_when_full: WireWhenFull,
    /// Further routes.
    #[serde(default)]
    pub(crate) routes: Vec<WireRoute>,
}

/// A `[[routes]]` table.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireRoute {
    pub(crate) name: String,
    pub(crate) listen_port: u16,
    pub(crate) target_addr: Option<String>,
    pub(crate) target_port: Option<u16>,
    /// Targets in place of one, as `HOST:PORT`.
    pub(crate) targets: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) mode: Mode,
    /// HTTP: the `Host` that the route answers to, or `*.` and what it ends with.
    pub(crate) host: Option<String>,
    pub(crate) log_level: Option<LogLevel>,
    #[serde(default = "timeout_seconds")]
    pub(crate) timeout_seconds: u64,
    pub(crate) total_seconds: Option<u64>,
    pub(crate) max_retries: Option<u32>,
    /// TCP: how bytes are carried.
    pub(crate) relay: Option<Carry>,
    /// Whether clients send a header of the PROXY protocol first.
    #[serde(default)]
    pub(crate) accept_proxy: bool,
    /// TCP: the version of the PROXY protocol by which the target is told the client's address.
    pub(crate) send_proxy: Option<WireProxyVersion>,
    /// TCP: clients connected at a time. HTTP: requests being answered at a time.
    pub(crate) max_connections: Option<usize>,
    /// HTTP: whether a client's `X-Forwarded-*` and `Forwarded` are believed.
    pub(crate) forwarded: Option<WireForwarded>,
    /// HTTP: where a request may choose to go. Without it, a request can't choose.
    pub(crate) allow: Option<WireAllow>,
}

impl WireRoute {
    /// Checks that a route has no keys of the other mode.
    pub(crate) fn is_of_mode(&self) -> Result<(), Mistake> {
        let (mode, keys): (_, &[_]) = match self.mode {
            Mode::Tcp => (
                "http",
                &[
                    ("host", self.host.is_some()),
                    ("allow", self.allow.is_some()),
                    ("log_level", self.log_level.is_some()),
                    ("total_seconds", self.total_seconds.is_some()),
                    ("max_retries", self.max_retries.is_some()),
                    ("forwarded", self.forwarded.is_some()),
                ],
            ),
            // In HTTP, 'X-Forwarded-For' tells the target who asks.
            Mode::Http => (
                "tcp",
                &[
                    ("relay", self.relay.is_some()),
                    ("send_proxy", self.send_proxy.is_some()),
                ],
            ),
        };
        for (name, is_set) in keys {
            ensure(!is_set, name, || {
                format!("'{name}' needs mode = \"{mode}\"")
            })?;
        }
        Ok(())
    }
}

/// The places that requests may name as their target.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireAllow {
    /// Names of hosts with public addresses, or `*.` and what they end with.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// Networks such as `10.1.0.0/16`. Addresses that aren't public must be in one of them.
    #[serde(default)]
    pub(crate) networks: Vec<String>,
    /// Ports.
    pub(crate) ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireProxyVersion {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Tcp,
    Http,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    None,
    #[default]
    Basic,
    Verbose,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireForwarded {
    #[default]
    Replace,
    Trust,
    Pass,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WireWhenFull {
    #[default]
    Drop,
    Block,
}

/// Limit for a request and its answer, in seconds, unless it is written.
pub(crate) const TOTAL_SECONDS: u64 = 3_600;

/// Most further attempts, unless that is written.
pub(crate) const RETRIES: u32 = 2;

/// Port of the main route, unless it is written.
pub(crate) const LISTEN_PORT: u16 = 8080;

fn all_addresses() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

fn this_machine() -> String {
    "127.0.0.1".to_owned()
}

fn target_port() -> u16 {
    80
}

fn max_connections() -> usize {
    100
}

/// A worker has one buffer, and the fewer calls move a long answer, the better.
fn buffer_size_kb() -> usize {
    128
}

fn half_closed_seconds() -> u64 {
    60
}

fn yes() -> bool {
    true
}

pub(crate) fn timeout_seconds() -> u64 {
    30
}
