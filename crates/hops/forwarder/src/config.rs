//! The configuration file: which ports are forwarded to where.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use anyhow::Context;
use serde::Deserialize;

use crate::relay::{Carry, Terms};

/// A configuration file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Address on which every route listens.
    #[serde(default = "all_addresses")]
    pub(crate) listen_addr: IpAddr,
    /// Port of the main route.
    #[serde(default = "listen_port")]
    pub(crate) listen_port: u16,
    /// Host of the main route's target.
    #[serde(default = "this_machine")]
    pub(crate) target_addr: String,
    /// Port of the main route's target.
    #[serde(default = "target_port")]
    pub(crate) target_port: u16,
    /// Largest number of clients connected at a time, on all routes together.
    #[serde(default = "max_connections")]
    pub(crate) max_connections: usize,
    /// Size of the buffer that each worker reads into, in KiB.
    #[serde(default = "buffer_size_kb")]
    pub(crate) buffer_size_kb: usize,
    /// How bytes are carried.
    #[serde(default)]
    pub(crate) relay: Carry,
    /// Seconds in which nothing may move once one side has closed its direction; 0 is no limit.
    #[serde(default = "half_closed_seconds")]
    pub(crate) half_closed_seconds: u64,
    /// Seconds in which nothing may move in any case; 0 is no limit.
    #[serde(default)]
    pub(crate) idle_seconds: u64,
    /// Further routes.
    #[serde(default)]
    pub(crate) routes: Vec<WireRoute>,
}

/// A `[[routes]]` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WireRoute {
    name: String,
    listen_port: u16,
    target_addr: Option<String>,
    target_port: Option<u16>,
    #[serde(default)]
    enabled: bool,
    #[serde(default = "timeout_seconds")]
    timeout_seconds: u64,
    relay: Option<Carry>,
}

/// A port that is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) listen: (IpAddr, u16),
    /// Host and port. The host is resolved anew for each connection.
    pub(crate) target: (String, u16),
    /// Time limit for connecting to the target.
    pub(crate) connect_max: Duration,
    pub(crate) terms: Terms,
}

/// Name of the route that has no table.
const MAIN: &str = "main";

/// Largest buffer, in KiB. A worker has one.
const BUFFER_KB_MAX: usize = 1024;

const CONNECTIONS_MAX: usize = 1_000_000;

const TIMEOUT_SECONDS_MAX: u64 = 3_600;

/// A day. Whoever wants more wants no limit.
const QUIET_SECONDS_MAX: u64 = 86_400;

impl Config {
    /// Reads a file; without one, everything has its default.
    ///
    /// # Errors
    /// If the file can't be read, or is invalid.
    pub(crate) fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(file) = file else {
            return Self::parse("");
        };
        let name = file.display();
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("could not read '{name}'"))?;
        Self::parse(&text).with_context(|| format!("'{name}'"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        Ok(config)
    }

    /// Returns the routes that are enabled, the main one first.
    ///
    /// # Errors
    /// If a value is out of range, or two routes have one name or port.
    pub(crate) fn routes(&self) -> anyhow::Result<Vec<Route>> {
        within("max_connections", self.max_connections, 1, CONNECTIONS_MAX)?;
        within("buffer_size_kb", self.buffer_size_kb, 1, BUFFER_KB_MAX)?;
        let main = Route {
            name: MAIN.to_owned(),
            listen: (self.listen_addr, self.listen_port),
            target: (self.target_addr.clone(), self.target_port),
            connect_max: Duration::from_secs(timeout_seconds()),
            terms: self.terms(self.relay)?,
        };
        let mut routes = vec![main];
        for wire in self.routes.iter().filter(|route| route.enabled) {
            let name = &wire.name;
            let seconds = wire.timeout_seconds;
            anyhow::ensure!(
                (1..=TIMEOUT_SECONDS_MAX).contains(&seconds),
                "route '{name}': 'timeout_seconds': expected 1 to {TIMEOUT_SECONDS_MAX}, found \
                 {seconds}"
            );
            routes.push(Route {
                name: name.clone(),
                listen: (self.listen_addr, wire.listen_port),
                target: (
                    wire.target_addr
                        .clone()
                        .unwrap_or_else(|| self.target_addr.clone()),
                    wire.target_port.unwrap_or(self.target_port),
                ),
                connect_max: Duration::from_secs(seconds),
                terms: self.terms(wire.relay.unwrap_or(self.relay))?,
            });
        }
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for Route { name, listen, .. } in &routes {
            anyhow::ensure!(
                names.insert(name),
                "route '{name}' is repeated: expected unique names"
            );
            let port = listen.1;
            anyhow::ensure!(
                port == 0 || ports.insert(port),
                "route '{name}': 'listen_port': {port} is another route's; expected a port of its \
                 own"
            );
        }
        Ok(routes)
    }

    fn terms(&self, carry: Carry) -> anyhow::Result<Terms> {
        Ok(Terms {
            carry,
            half_closed_max: quiet_max("half_closed_seconds", self.half_closed_seconds)?,
            idle_max: quiet_max("idle_seconds", self.idle_seconds)?,
        })
    }
}

/// Returns a limit of the time in which nothing moves, unless it is 0.
fn quiet_max(name: &str, seconds: u64) -> anyhow::Result<Option<Duration>> {
    anyhow::ensure!(
        seconds <= QUIET_SECONDS_MAX,
        "'{name}': expected 0 (no limit) to {QUIET_SECONDS_MAX}, found {seconds}"
    );
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

fn within(name: &str, value: usize, min: usize, max: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        (min..=max).contains(&value),
        "'{name}': expected {min} to {max}, found {value}"
    );
    Ok(())
}

fn all_addresses() -> IpAddr {
    IpAddr::from([0, 0, 0, 0])
}

fn listen_port() -> u16 {
    8080
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

fn buffer_size_kb() -> usize {
    64
}

fn timeout_seconds() -> u64 {
    30
}

fn half_closed_seconds() -> u64 {
    60
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Result<Vec<Route>, String> {
        let routes = Config::parse(text).and_then(|config| config.routes());
        routes.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn an_empty_file_has_the_defaults() {
        let routes = routes("").expect("valid");
        let [main] = routes.as_slice() else {
            panic!("{routes:?}");
        };
        assert_eq!(main.listen, (IpAddr::from([0, 0, 0, 0]), 8080));
        assert_eq!(main.target, ("127.0.0.1".to_owned(), 80));
    }

    #[test]
    fn a_route_is_forwarded_only_if_enabled() {
        let table = "[[routes]]\nname = 'a'\nlisten_port = 9090\ntarget_port = 9\n";
        assert_eq!(routes(table).expect("valid").len(), 1);
        let both = routes(&format!("{table}enabled = true\ntimeout_seconds = 2\n")).expect("valid");
        assert_eq!(both[1].target, ("127.0.0.1".to_owned(), 9));
        assert_eq!(both[1].connect_max, Duration::from_secs(2));
    }

    #[test]
    fn a_route_may_relay_in_its_own_way() {
        let table = "[[routes]]\nname = 'a'\nlisten_port = 9090\nenabled = true\n";
        let text = format!("relay = 'copy'\nidle_seconds = 7\n{table}relay = 'splice'\n");
        let both = routes(&text).expect("valid");
        assert_eq!(both[0].terms.carry, Carry::Copy);
        assert_eq!(both[1].terms.carry, Carry::Splice);
        for route in both {
            assert_eq!(route.terms.idle_max, Some(Duration::from_secs(7)));
            assert_eq!(route.terms.half_closed_max, Some(Duration::from_secs(60)));
        }
        let unlimited = routes("half_closed_seconds = 0").expect("valid");
        assert_eq!(unlimited[0].terms.half_closed_max, None);
        assert_eq!(unlimited[0].terms.idle_max, None);
        assert_eq!(unlimited[0].terms.carry, Carry::Auto);
    }

    #[test]
    fn mistakes_are_named() {
        let route = "[[routes]]\nenabled = true\nname = 'a'\n";
        for (text, said) in [
            ("listen_prt = 1", "unknown field `listen_prt`"),
            ("listen_port = 70000", "70000"),
            ("listen_addr = 'here'", "line 1"),
            ("max_connections = 0", "'max_connections': expected 1 to"),
            (
                "buffer_size_kb = 0",
                "'buffer_size_kb': expected 1 to 1024, found 0",
            ),
            ("relay = 'fast'", "unknown variant `fast`, expected one of"),
            (
                "idle_seconds = 86401",
                "'idle_seconds': expected 0 (no limit) to 86400, found 86401",
            ),
            (
                &format!("{route}listen_port = 8080"),
                "route 'a': 'listen_port': 8080 is another",
            ),
            (
                &format!("{route}listen_port = 1\ntimeout_seconds = 0"),
                "'timeout_seconds'",
            ),
            (
                &format!("{route}listen_port = 1\n{route}listen_port = 2"),
                "route 'a' is repeated",
            ),
        ] {
            let error = routes(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
