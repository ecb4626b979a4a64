//! Which ports are forwarded to where, and how.

pub(crate) mod place;
pub(crate) mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use http_proxy::{
    Forwarding, Place, UpstreamLimits,
    access_log::{Detail, Format, WhenFull},
};
use service::{
    mistake::{self, Mistake, ensure, within},
    proxy_protocol::ProxyVersion,
};

use self::wire::{
    LISTEN_PORT, LogLevel, Mode, RETRIES, TOTAL_SECONDS, WireConfig, WireFormat, WireForwarded,
    WireProxyVersion, WireRoute, WireWhenFull, timeout_seconds,
};
use crate::{
    allow::Allow,
    relay::{Carry, Terms},
};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) max_connections: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) log_format: Format,
    pub(crate) log_when_full: WhenFull,
    /// The main route is the first.
    pub(crate) routes: Vec<Route>,
}

/// A port, or a host at a port, and where it is forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    /// One at least, but for an HTTP route that lets requests choose.
    pub(crate) targets: Vec<Place>,
    pub(crate) timeout: Duration,
    pub(crate) max_connections: Option<usize>,
    /// For TCP.
    pub(crate) terms: Terms,
    /// Whether clients send a header of the PROXY protocol first.
    pub(crate) accepts_proxy: bool,
    /// Whether the target is sent one, and in which version.
    pub(crate) sends_proxy: Option<ProxyVersion>,
    /// `None` for TCP.
    pub(crate) http: Option<HttpSettings>,
}

/// The settings that only an HTTP route has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpSettings {
    /// In lower case.
    pub(crate) host: Option<String>,
    pub(crate) log: Option<Detail>,
    pub(crate) total: Duration,
    pub(crate) retries_max: u32,
    pub(crate) forwarding: Forwarding,
    pub(crate) allow: Option<Allow>,
}

/// The parts of a configuration that the command line gives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) listen_port: Option<u16>,
    pub(crate) target_port: Option<u16>,
}

/// Name of the route that has no table.
const MAIN: &str = "main";

/// Largest buffer, in KiB.
const BUFFER_KB_MAX: usize = 1024;

const CONNECTIONS_MAX: usize = 1_000_000;

const SECONDS_MAX: u64 = 86_400;

const RETRIES_MAX: u32 = 10;

/// Largest file. Thousands of routes are smaller.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Longest wait for a connection to an HTTP target: others may be tried meanwhile.
const CONNECT_MAX: Duration = Duration::from_secs(5);

impl Config {
    /// Reads a file; without one, everything has its default.
    ///
    /// # Errors
    /// If the file can't be read, or is invalid.
    pub(crate) fn read(file: Option<&Path>, overrides: Overrides) -> anyhow::Result<Self> {
        let Some(file) = file else {
            return Ok(Self::parse("", overrides)?);
        };
        let (name, text) = (file.display(), mistake::read(file, FILE_BYTES_MAX)?);
        // A file that is just being written looks like this. It must not become a route to port 80.
        let is_empty = text
            .parse::<toml::Table>()
            .is_ok_and(|table| table.is_empty());
        anyhow::ensure!(!is_empty, "'{name}' is empty: expected a port or a route");
        Self::parse(&text, overrides).map_err(|mistake| mistake.of_file(file))
    }

    /// Parses and checks the text of a file.
    ///
    /// # Errors
    /// If it is no TOML, a key is unknown, a value is out of range, or routes are in each other's
    /// way.
    pub(crate) fn parse(text: &str, overrides: Overrides) -> Result<Self, Mistake> {
        let wire = toml::from_str(text).map_err(|error| Mistake::parsed(&error, text))?;
        Self::new(&wire, overrides).map_err(|mistake| mistake.found_in(text))
    }

    fn new(wire: &WireConfig, overrides: Overrides) -> Result<Self, Mistake> {
        within("max_connections", wire.max_connections, 1, CONNECTIONS_MAX)?;
        within("buffer_size_kb", wire.buffer_size_kb, 1, BUFFER_KB_MAX)?;
        let mut routes = Vec::new();
        let numbered = wire.routes.iter().enumerate();
        let enabled: Vec<_> = numbered.filter(|(_, route)| route.enabled).collect();
        if overrides.listen_port.or(wire.listen_port).is_some() || enabled.is_empty() {
            let main = Route::main(wire, overrides);
            let main = main.map_err(|mistake| match overrides {
                Overrides {
                    listen_port: None,
                    target_port: None,
                } => mistake,
                _ => mistake.outside(),
            })?;
            routes.push((None, main));
        }
        for (index, route) in enabled {
            let checked = Route::new(route, wire);
            let checked = checked.map_err(|mistake| in_route(mistake, &route.name, index))?;
            routes.push((Some(index), checked));
        }
        are_compatible(&routes)?;
        Ok(Self {
            max_connections: wire.max_connections,
            buffer_bytes: wire.buffer_size_kb * 1024,
            log_format: match wire.log_format {
                WireFormat::Text => Format::Text,
                WireFormat::Json => Format::Json,
            },
            log_when_full: match wire.log_when_full {
                WireWhenFull::Drop => WhenFull::Drop,
                WireWhenFull::Block => WhenFull::Block,
            },
            routes: routes.into_iter().map(|(_, route)| route).collect(),
        })
    }
}

impl Route {
    /// Makes the route that has no table.
    fn main(wire: &WireConfig, overrides: Overrides) -> Result<Self, Mistake> {
        let target_port = overrides.target_port.unwrap_or(wire.target_port);
        let listen_port = overrides.listen_port.or(wire.listen_port);
        let route = Self {
            name: MAIN.to_owned(),
            listen: (wire.listen_addr, listen_port.unwrap_or(LISTEN_PORT)).into(),
            targets: vec![place::target(&wire.target_addr, target_port)?],
            timeout: Duration::from_secs(timeout_seconds()),
            max_connections: None,
            terms: terms(wire, wire.relay)?,
            accepts_proxy: false,
            sends_proxy: None,
            http: None,
        };
        route.has_other_targets("target_port")?;
        Ok(route)
    }

    fn new(wire: &WireRoute, config: &WireConfig) -> Result<Self, Mistake> {
        let seconds = |name, value: u64| {
            ensure((1..=SECONDS_MAX).contains(&value), name, || {
                format!("'{name}': expected 1 to {SECONDS_MAX}, found {value}")
            })?;
            Ok(Duration::from_secs(value))
        };
        if let Some(most) = wire.max_connections {
            within("max_connections", most, 1, CONNECTIONS_MAX)?;
        }
        let (timeout, total) = (
            seconds("timeout_seconds", wire.timeout_seconds)?,
            seconds("total_seconds", wire.total_seconds.unwrap_or(TOTAL_SECONDS))?,
        );
        let retries_max = wire.max_retries.unwrap_or(RETRIES);
        ensure(retries_max <= RETRIES_MAX, "max_retries", || {
            format!("'max_retries': expected 0 to {RETRIES_MAX}, found {retries_max}")
        })?;
        let allow = wire.allow.as_ref().map(Allow::new).transpose();
        let allow = allow.map_err(|mistake| mistake.in_table("allow"))?;
        let log = match wire.log_level.unwrap_or_default() {
            LogLevel::None => None,
            _ if !config.log_requests => None,
            LogLevel::Basic => Some(Detail::Basic),
            LogLevel::Verbose => Some(Detail::Verbose),
        };
        let http = HttpSettings {
            host: wire
                .host
                .as_deref()
                .map(|host| place::asked_host("host", host))
                .transpose()?,
            log,
            total,
            retries_max,
            forwarding: match wire.forwarded.unwrap_or_default() {
                WireForwarded::Replace => Forwarding::Replace,
                WireForwarded::Trust => Forwarding::Trust,
                WireForwarded::Pass => Forwarding::Pass,
            },
            allow,
        };
        wire.is_of_mode()?;
        let route = Self {
            name: wire.name.clone(),
            listen: (config.listen_addr, wire.listen_port).into(),
            targets: targets(wire, config, http.allow.is_some())?,
            timeout,
            max_connections: wire.max_connections,
            terms: terms(config, wire.relay.unwrap_or(config.relay))?,
            accepts_proxy: wire.accept_proxy,
            sends_proxy: wire.send_proxy.map(|version| match version {
                WireProxyVersion::V1 => ProxyVersion::V1,
                WireProxyVersion::V2 => ProxyVersion::V2,
            }),
            http: (wire.mode == Mode::Http).then_some(http),
        };
        let is_list = wire.targets.is_some();
        route.has_other_targets(if is_list { "targets" } else { "target_port" })?;
        Ok(route)
    }

    /// Checks that a route isn't its own target, which is written as `key`.
    fn has_other_targets(&self, key: &'static str) -> Result<(), Mistake> {
        let mut targets = self.targets.iter();
        let itself = targets.position(|it| place::is_itself(it, self.listen));
        let Some(index) = itself else {
            return Ok(());
        };
        let text = format!("its target '{}' is its own port", self.targets[index]);
        Err(Mistake::at(key, text).in_item(index))
    }

    /// Returns the limits for asking a target by HTTP.
    pub(crate) fn upstream_limits(&self, http: &HttpSettings) -> UpstreamLimits {
        UpstreamLimits {
            connect: self.timeout.min(CONNECT_MAX),
            head: self.timeout,
            idle: self.timeout,
            total: http.total,
            retries_max: http.retries_max,
        }
    }
}

fn terms(config: &WireConfig, carry: Carry) -> Result<Terms, Mistake> {
    Ok(Terms {
        carry,
        half_closed_max: quiet_max("half_closed_seconds", config.half_closed_seconds)?,
        idle_max: quiet_max("idle_seconds", config.idle_seconds)?,
    })
}

/// Returns a limit of the time in which nothing moves, unless it is 0.
fn quiet_max(name: &'static str, seconds: u64) -> Result<Option<Duration>, Mistake> {
    ensure(seconds <= SECONDS_MAX, name, || {
        format!("'{name}': expected 0 (no limit) to {SECONDS_MAX}, found {seconds}")
    })?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Returns the targets of a route.
fn targets(wire: &WireRoute, config: &WireConfig, may_lack: bool) -> Result<Vec<Place>, Mistake> {
    let is_single = wire.target_addr.is_some() || wire.target_port.is_some();
    if let Some(targets) = &wire.targets {
        ensure(!is_single, "targets", || {
            "'targets' and 'target_addr' or 'target_port' exclude each other; keep one".to_owned()
        })?;
        ensure(!targets.is_empty(), "targets", || {
            "'targets': expected one at least".to_owned()
        })?;
        let places = targets.iter().enumerate().map(|(index, text)| {
            place::host_and_port(text).map_err(|mistake| mistake.in_item(index))
        });
        return places.collect();
    }
    if may_lack && !is_single {
        return Ok(Vec::new());
    }
    let host = wire.target_addr.as_ref().unwrap_or(&config.target_addr);
    let port = wire.target_port.unwrap_or(config.target_port);
    Ok(vec![place::target(host, port)?])
}

/// Says in which route a mistake is.
fn in_route(mistake: Mistake, name: &str, index: usize) -> Mistake {
    mistake.in_entry("routes", index, &format!("route '{name}'"))
}

/// Checks that every route can be told from the others. With each is its number in the file; the
/// first may be the main route.
fn are_compatible(routes: &[(Option<usize>, Route)]) -> Result<(), Mistake> {
    let mut names = BTreeSet::new();
    let mut ports: BTreeMap<u16, Vec<&Route>> = BTreeMap::new();
    for (index, route) in routes {
        let others = ports.entry(route.listen.port()).or_default();
        let mut checked = ensure(names.insert(&route.name), "name", || {
            "the name is repeated: expected unique names".to_owned()
        });
        if route.listen.port() != 0 {
            checked = checked.and_then(|()| is_compatible(route, others));
            others.push(route);
        }
        checked.map_err(|mistake| match index {
            Some(index) => in_route(mistake, &route.name, *index),
            None => mistake,
        })?;
    }
    Ok(())
}

/// Checks that a route can be told from the others at its port.
fn is_compatible(route: &Route, others: &[&Route]) -> Result<(), Mistake> {
    let port = route.listen.port();
    for other in others {
        let (Some(http), Some(its_http)) = (&route.http, &other.http) else {
            let text = format!(
                "'listen_port': {port} is also the port of route '{}'; expected a port of its own",
                other.name
            );
            return Err(Mistake::at("listen_port", text));
        };
        ensure(http.host != its_http.host, "host", || {
            format!(
                "it has the port and the host of route '{}'; expected another 'host'",
                other.name
            )
        })?;
        ensure(
            route.accepts_proxy == other.accepts_proxy,
            "accept_proxy",
            || {
                format!(
                    "'accept_proxy' differs from that of route '{}' at the same port",
                    other.name
                )
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Overrides::default()).map_err(|error| format!("{error:#}"))
    }

    fn place_of(port: u16) -> Place {
        Place::Name("127.0.0.1".to_owned(), port)
    }

    #[test]
    fn an_empty_file_has_the_defaults() {
        let config = parse("").expect("valid");
        let [main] = config.routes.as_slice() else {
            panic!("{config:?}");
        };
        assert_eq!(main.listen, "0.0.0.0:8080".parse().expect("an address"));
        assert_eq!(main.targets, [place_of(80)]);
        assert_eq!(
            (config.max_connections, config.buffer_bytes),
            (100, 128 * 1024)
        );
    }

    #[test]
    fn a_route_is_forwarded_only_if_enabled() {
        let table = "[[routes]]\nname = 'a'\nlisten_port = 9090\ntarget_port = 9\n";
        assert_eq!(parse(table).expect("valid").routes[0].name, "main");
        let enabled = format!("{table}enabled = true\ntimeout_seconds = 2\n");
        let alone = parse(&enabled).expect("valid");
        assert_eq!(alone.routes.len(), 1, "nobody asked for a main route");
        assert_eq!(alone.routes[0].targets, [place_of(9)]);
        assert_eq!(alone.routes[0].timeout, Duration::from_secs(2));
        let both = parse(&format!("listen_port = 1\n{enabled}")).expect("valid");
        assert_eq!(both.routes.len(), 2);
    }

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let overrides = Overrides {
            listen_port: Some(1),
            target_port: Some(2),
        };
        let text = "listen_port = 3\ntarget_port = 4\n";
        let config = Config::parse(text, overrides).expect("valid");
        assert_eq!(config.routes[0].listen.port(), 1);
        assert_eq!(config.routes[0].targets, [place_of(2)]);
    }

    #[test]
    fn http_routes_share_a_port_if_their_hosts_differ() {
        let route = |name, host| {
            format!(
                "[[routes]]\nenabled = true\nmode = 'http'\nlisten_port = 81\nname = '{name}'\n\
                 {host}\n"
            )
        };
        let three = route("a", "host = 'A.example'")
            + &route("b", "host = '*.example'\ntargets = ['x:1', '[::1]:2']")
            + &route(
                "c",
                "[routes.allow]\nnetworks = ['127.0.0.1']\nports = [80]",
            );
        let config = parse(&three).expect("valid");
        let http = |index: usize| config.routes[index].http.as_ref().expect("HTTP");
        assert_eq!(http(0).host.as_deref(), Some("a.example"));
        let two = [
            Place::Name("x".to_owned(), 1),
            Place::Name("::1".to_owned(), 2),
        ];
        assert_eq!(config.routes[1].targets, two);
        assert!(config.routes[2].targets.is_empty() && http(2).allow.is_some());
        let unlogged = parse(&format!("log_requests = false\n{three}")).expect("valid");
        assert!(
            http(0).log.is_some()
                && unlogged.routes[0]
                    .http
                    .as_ref()
                    .expect("HTTP")
                    .log
                    .is_none()
        );
        let same = parse(&format!("{three}{}", route("d", "host = 'a.EXAMPLE'")));
        let error = same.expect_err("the same host");
        assert!(
            error.contains("route 'd': it has the port and the host of route 'a'"),
            "{error}"
        );
    }

    #[test]
    fn a_route_may_relay_in_its_own_way() {
        let table = "[[routes]]\nname = 'a'\nlisten_port = 9090\nenabled = true\n";
        let text = format!("listen_port = 1\nrelay = 'copy'\nidle_seconds = 7\n{table}");
        let both = parse(&format!("{text}relay = 'splice'\nsend_proxy = 'v2'")).expect("valid");
        let [main, own] = both.routes.as_slice() else {
            panic!("{both:?}");
        };
        assert_eq!(main.terms.carry, Carry::Copy);
        assert_eq!(own.terms.carry, Carry::Splice);
        assert_eq!(own.sends_proxy, Some(ProxyVersion::V2));
        for route in [main, own] {
            assert_eq!(route.terms.idle_max, Some(Duration::from_secs(7)));
            assert_eq!(route.terms.half_closed_max, Some(Duration::from_secs(60)));
        }
        let unlimited = parse("half_closed_seconds = 0").expect("valid");
        assert_eq!(unlimited.routes[0].terms.half_closed_max, None);
        assert_eq!(unlimited.routes[0].terms.idle_max, None);
        assert_eq!(unlimited.routes[0].terms.carry, Carry::Auto);
    }

    fn are_named(mistakes: &[(&str, &str)]) {
        for (text, said) in mistakes {
            let error = parse(text).expect_err(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    const ROUTE: &str = "[[routes]]\nenabled = true\nname = 'a'\n";

    fn with(line: &str) -> String {
        format!("{ROUTE}listen_port = 1\n{line}")
    }

    #[test]
    fn mistakes_are_named() {
        are_named(&[
            ("\n  listen_prt = 1", "2:3: unknown field `listen_prt`"),
            ("listen_port = 70000", "70000"),
            ("listen_addr = 'here'", "1:15: 'listen_addr': invalid IP"),
            ("max_connections = 0", "'max_connections': expected 1 to"),
            (
                "buffer_size_kb = 0",
                "'buffer_size_kb': expected 1 to 1024, found 0",
            ),
            ("target_port = 0", "'target_port': expected 1 to 65535"),
            ("target_addr = 'a b'", "'target_addr': expected a name"),
            (
                "listen_port = 81\ntarget_port = 81",
                "2:15: its target '127.0.0.1:81' is its own port",
            ),
            ("relay = 'fast'", "unknown variant `fast`"),
            (
                "idle_seconds = 86401",
                "'idle_seconds': expected 0 (no limit) to 86400",
            ),
            (
                &format!("listen_port = 1\n{}", with("")),
                "'listen_port': 1 is also the port of",
            ),
            (
                &format!("{}{ROUTE}listen_port = 2", with("")),
                "7:8: route 'a': the name is repeated",
            ),
            (ROUTE, "1:1: 'routes': missing field `listen_port`"),
        ]);
    }

    #[test]
    fn mistakes_of_routes_are_named() {
        are_named(&[
            (
                &with("timeout_seconds = 0"),
                "5:19: route 'a': 'timeout_seconds'",
            ),
            (&with("targets = []"), "'targets': expected one at least"),
            (
                &with("targets = ['x:1', 'a:1:2']"),
                "5:19: route 'a': 'targets': expected 'HOST:PORT'",
            ),
            (&with("targets = ['x:0']"), "expected 'HOST:PORT'"),
            (
                &with("max_retries = 1"),
                "'max_retries' needs mode = \"http\"",
            ),
            (
                &with("mode = 'http'\nsend_proxy = 'v1'"),
                "'send_proxy' needs mode = \"tcp\"",
            ),
            (
                &with("mode = 'http'\nmax_retries = 11"),
                "route 'a': 'max_retries'",
            ),
            (&with("host = 'x'"), "route 'a': 'host' needs mode"),
            (
                &with("mode = 'http'\nhost = 'x:80'"),
                "'host': expected a name",
            ),
            (&with("targets = ['x']"), "found 'x'"),
            (
                &with("targets = ['x:1']\ntarget_port = 2"),
                "exclude each other",
            ),
            (&with("mode = 'udp'"), "unknown variant `udp`"),
            (
                &with("mode = 'http'\n[routes.allow]\nports = []"),
                "'allow': 'ports'",
            ),
        ]);
    }
}
