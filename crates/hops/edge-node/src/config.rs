//! The configuration of a node: read and checked.

mod wire;

use std::{net::SocketAddr, path::Path, time::Duration};

use http_proxy::{Place, UpstreamLimits};
use service::mistake::{self, Mistake, ensure};

use self::wire::{
    Kind, WireCluster, WireConfig, WireLimit, WireRoute, WireScope, WireUpstream, WireWaf,
};
use crate::{
    cache_key::KeyRules,
    rate_limit::{Limit, Scope},
    routes::{self, Table},
    tokens::{Tokens, TokensError},
    waf::{Rules, Settings, Waf, WafError},
};

/// A checked configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) upstreams: Vec<Upstream>,
    /// Leads to the indices of `routes`. `None` if that stage is left out.
    pub(crate) table: Option<Table<usize>>,
    pub(crate) routes: Vec<Leads>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) waf: Option<Waf>,
    pub(crate) cache: Option<CacheConfig>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) shows_generation: bool,
}

/// Servers that answer the same requests.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) places: Vec<Place>,
    pub(crate) limits: UpstreamLimits,
}

/// Where a route leads, and what happens on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leads {
    /// Index of the upstream.
    pub(crate) upstream: usize,
    /// Indices of the limits.
    pub(crate) limits: Vec<usize>,
    pub(crate) needs_token: bool,
    pub(crate) is_inspected: bool,
    pub(crate) is_cached: bool,
}

/// Settings of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheConfig {
    pub(crate) bytes_max: u64,
    pub(crate) answer_bytes_max: usize,
    pub(crate) key: KeyRules,
}

/// The nodes that count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) listen: SocketAddr,
    pub(crate) peers: Vec<Place>,
    pub(crate) secret: String,
    pub(crate) interval: Duration,
}

/// Largest file. Ten thousand routes have a megabyte.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Shortest secret of a cluster. A shorter one could be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// A file to begin with.
pub(crate) const EXAMPLE: &str = include_str!("../examples/edge.toml");

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it can't be read, or is invalid: with the place.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = mistake::read(file, FILE_BYTES_MAX)?;
        let beside = file.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, beside).map_err(|mistake| mistake.of_file(file))
    }

    /// Checks the text of a file. Files of rules are looked for in `beside`.
    ///
    /// # Errors
    /// The first mistake.
    fn parse(text: &str, beside: &Path) -> Result<Self, Mistake> {
        let wire = toml::from_str(text).map_err(|error| Mistake::parsed(&error, text))?;
        Self::new(&wire, beside).map_err(|mistake| mistake.found_in(text))
    }

    fn new(wire: &WireConfig, beside: &Path) -> Result<Self, Mistake> {
        let upstreams = upstreams(wire)?;
        let limits = limits(wire)?;
        let mut routes = Vec::new();
        let mut written = Vec::new();
        for (index, route) in wire.route.iter().enumerate() {
            let leads = leads(route, &upstreams, &limits);
            routes.push(leads.map_err(|mistake| in_route(mistake, route, index))?);
            written.push(as_written(route, index));
        }
        let table = match written.is_empty() {
            true => None,
            false => Some(Table::compile(written).map_err(|error| {
                let mistake = Mistake::at("path", error.problem.to_string());
                in_route(mistake, &wire.route[error.index], error.index)
            })?),
        };
        let waf = wire.waf.as_ref().map(|waf| self::waf(waf, beside));
        let cluster = wire.cluster.as_ref().map(cluster);
        let tokens = wire.tokens.as_ref().map(|tokens| {
            let read = Tokens::read(&beside.join(&tokens.directory));
            let named = |error: TokensError| Mistake::at("directory", error.to_string());
            read.map_err(|error| named(error).in_table("tokens"))
        });
        Ok(Self {
            upstreams,
            table,
            routes,
            limits,
            tokens: tokens.transpose()?,
            waf: waf.transpose().map_err(|mistake| mistake.in_table("waf"))?,
            cache: wire.cache.as_ref().map(|cache| CacheConfig {
                bytes_max: cache.mib.saturating_mul(1 << 20),
                answer_bytes_max: cache.answer_kib_max.saturating_mul(1 << 10),
                key: KeyRules {
                    query: cache.query.into(),
                    query_ignore: cache.query_ignore.clone(),
                    headers: cache.headers.clone(),
                },
            }),
            cluster: cluster
                .transpose()
                .map_err(|mistake| mistake.in_table("cluster"))?,
            shows_generation: wire.generation_header,
        })
    }
}

fn upstreams(wire: &WireConfig) -> Result<Vec<Upstream>, Mistake> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for (index, written) in wire.upstream.iter().enumerate() {
        let name = &written.name;
        let is_new = upstreams.iter().all(|other| other.name != *name);
        let upstream = is_unique(is_new).and_then(|()| upstream(written));
        upstreams.push(upstream.map_err(|mistake| {
            mistake.in_entry("upstream", index, &format!("upstream '{name}'"))
        })?);
    }
    ensure(!upstreams.is_empty(), "upstream", || {
        "there is no [[upstream]]: expected one at least".to_owned()
    })?;
    ensure(
        upstreams.len() == 1 || !wire.route.is_empty(),
        "upstream",
        || "there are several upstreams and no [[route]] to tell which is asked".to_owned(),
    )?;
    Ok(upstreams)
}

fn is_unique(is_new: bool) -> Result<(), Mistake> {
    ensure(is_new, "name", || {
        "there are two of this name; rename one".to_owned()
    })
}

fn upstream(wire: &WireUpstream) -> Result<Upstream, Mistake> {
    ensure(!wire.targets.is_empty(), "targets", || {
        "'targets': expected one at least".to_owned()
    })?;
    let seconds = wire.timeout_seconds;
    ensure((1..=86_400).contains(&seconds), "timeout-seconds", || {
        format!("'timeout-seconds': expected 1 to 86400, found {seconds}")
    })?;
    let retries_max = wire.retries_max;
    ensure(retries_max <= 10, "retries-max", || {
        format!("'retries-max': expected 0 to 10, found {retries_max}")
    })?;
    let timeout = Duration::from_secs(seconds);
    Ok(Upstream {
        name: wire.name.clone(),
        places: places("targets", &wire.targets)?,
        limits: UpstreamLimits {
            connect: timeout.min(Duration::from_secs(5)),
            head: timeout,
            idle: timeout,
            total: Duration::from_secs(3_600).max(timeout),
            retries_max,
        },
    })
}

fn places(key: &'static str, written: &[String]) -> Result<Vec<Place>, Mistake> {
    let places = written.iter().enumerate().map(|(index, text)| {
        Place::parse(text)
            .map_err(|why| Mistake::at(key, format!("'{text}': {why}")).in_item(index))
    });
    places.collect()
}

fn limits(wire: &WireConfig) -> Result<Vec<Limit>, Mistake> {
    let mut limits: Vec<Limit> = Vec::new();
    for (index, written) in wire.limit.iter().enumerate() {
        let is_new = limits.iter().all(|other| other.name != written.name);
        let limit = is_unique(is_new).and_then(|()| limit(written));
        limits.push(limit.map_err(|mistake| {
            mistake.in_entry("limit", index, &format!("limit '{}'", written.name))
        })?);
    }
    Ok(limits)
}

fn limit(wire: &WireLimit) -> Result<Limit, Mistake> {
    ensure(wire.requests > 0, "requests", || {
        "'requests': expected 1 or more".to_owned()
    })?;
    let limit = Limit {
        name: wire.name.clone(),
        requests: wire.requests,
        window_ms: wire.window_ms,
        scope: match wire.scope {
            WireScope::Client => Scope::Client,
            WireScope::All => Scope::All,
        },
    };
    match limit.check() {
        Ok(()) => Ok(limit),
        Err(error) => Err(Mistake::at("window-ms", error.to_string())),
    }
}

fn in_route(mistake: Mistake, route: &WireRoute, index: usize) -> Mistake {
    mistake.in_entry("route", index, &format!("route '{}'", route.name))
}

fn leads(wire: &WireRoute, upstreams: &[Upstream], limits: &[Limit]) -> Result<Leads, Mistake> {
    let upstream = match &wire.upstream {
        Some(name) => upstreams
            .iter()
            .position(|it| it.name == *name)
            .ok_or_else(|| {
                Mistake::at("upstream", format!("no [[upstream]] has the name '{name}'"))
            })?,
        None if upstreams.len() == 1 => 0,
        None => {
            let text = "expected 'upstream', since there are several";
            return Err(Mistake::at("upstream", text));
        }
    };
    let limits = wire.limits.iter().enumerate().map(|(index, name)| {
        let found = limits.iter().position(|limit| limit.name == *name);
        found.ok_or_else(|| {
            let text = format!("no [[limit]] has the name '{name}'");
            Mistake::at("limits", text).in_item(index)
        })
    });
    Ok(Leads {
        upstream,
        limits: limits.collect::<Result<_, _>>()?,
        needs_token: wire.tokens,
        is_inspected: wire.waf,
        is_cached: wire.cache,
    })
}

fn as_written(wire: &WireRoute, index: usize) -> routes::Route<usize> {
    let path = wire.path.clone();
    routes::Route {
        host: wire.host.clone(),
        methods: wire.methods.clone(),
        path: match wire.kind {
            Kind::Exact => routes::Path::Exact(path),
            Kind::Prefix => routes::Path::Prefix(path),
            Kind::Wildcard => routes::Path::Wildcard(path),
            Kind::Regex => routes::Path::Regex(path),
        },
        priority: wire.priority,
        target: index,
    }
}

fn waf(wire: &WireWaf, beside: &Path) -> Result<Waf, Mistake> {
    let settings = Settings {
        mode: wire.mode,
        paranoia: wire.paranoia,
        threshold: wire.threshold,
        complete: false,
        exclusions: wire.exclude.clone(),
        limits: wire.limits.clone(),
    };
    let of_rules = |error: &dyn std::fmt::Display| Mistake::at("rules", error.to_string());
    let mut rules = Rules::builtin().map_err(|error| of_rules(&error))?;
    for (index, name) in wire.rules.iter().enumerate() {
        let read = mistake::read(&beside.join(name), FILE_BYTES_MAX);
        let read = read.map_err(|error| of_rules(&format!("{error:#}")).in_item(index));
        let added = rules.add(name, &read?);
        added.map_err(|error| of_rules(&error).in_item(index))?;
    }
    Waf::new(settings, rules).map_err(|error| {
        let text = error.to_string();
        match error {
            WafError::Paranoia(_) => Mistake::at("paranoia", text),
            WafError::Threshold => Mistake::at("threshold", text),
            WafError::Exclusion(number) | WafError::UnknownRule(number, _) => {
                Mistake::at("exclude", text).in_item(number - 1)
            }
            WafError::Rules(_) | WafError::Literals(_) => Mistake::at("rules", text),
        }
    })
}

fn cluster(wire: &WireCluster) -> Result<Cluster, Mistake> {
    let listen = wire.listen.parse().map_err(|_| {
        let found = &wire.listen;
        let text = format!("'listen': expected an address and a port, found '{found}'");
        Mistake::at("listen", text)
    })?;
    ensure(wire.secret.len() >= SECRET_BYTES_MIN, "secret", || {
        format!("'secret': expected {SECRET_BYTES_MIN} bytes or more")
    })?;
    let interval_ms = wire.interval_ms;
    ensure((10..=60_000).contains(&interval_ms), "interval-ms", || {
        format!("'interval-ms': expected 10 to 60000, found {interval_ms}")
    })?;
    Ok(Cluster {
        listen,
        peers: places("peers", &wire.peers)?,
        secret: wire.secret.clone(),
        interval: Duration::from_millis(interval_ms),
    })
}
