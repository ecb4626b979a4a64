//! The configuration of a node: read and checked.

mod wire;

use std::{fs::File, io::Read as _, net::SocketAddr, ops::Range, path::Path, time::Duration};

use http_proxy::{Place, UpstreamLimits};

use self::wire::{Kind, WireCluster, WireConfig, WireLimit, WireRoute, WireScope, WireWaf};
use crate::{
    cache_key::KeyRules,
    rate_limit::{Limit, Scope},
    routes,
    waf::{Rules, Settings},
};

/// A checked configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) upstreams: Vec<Upstream>,
    /// Empty if the stage is left out.
    pub(crate) routes: Vec<routes::Route<Leads>>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) waf: Option<(Settings, Rules)>,
    pub(crate) cache: Option<CacheConfig>,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) shows_generation: bool,
    /// Where each route is in the file, for messages.
    lines: Vec<usize>,
    file: String,
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
    pub(crate) name: String,
    /// Index of the upstream.
    pub(crate) upstream: usize,
    /// Indices of the limits.
    pub(crate) limits: Vec<usize>,
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

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub(crate) struct ConfigError {
    file: String,
    line: usize,
    problem: String,
}

/// A problem and where in the text it is.
type Problem = (Range<usize>, String);

/// Largest file. Ten thousand routes have a megabyte.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// A file to begin with.
pub(crate) const EXAMPLE: &str = include_str!("../examples/edge.toml");

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it can't be read, or is invalid: with the line.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let text = read(file).map_err(|error| anyhow::anyhow!("'{name}': {error}"))?;
        let beside = file.parent().unwrap_or_else(|| Path::new(""));
        Ok(Self::parse(&name, &text, beside)?)
    }

    /// Checks the text of a file. Files of rules are looked for in `beside`.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub(crate) fn parse(file: &str, text: &str, beside: &Path) -> Result<Self, ConfigError> {
        let at = |(span, problem): Problem| ConfigError {
            file: file.to_owned(),
            line: line(text, span.start),
            problem,
        };
        let wire: WireConfig = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            at((span, error.message().replace('\n', "; ")))
        })?;
        Self::new(file, text, &wire, beside).map_err(at)
    }

    fn new(file: &str, text: &str, wire: &WireConfig, beside: &Path) -> Result<Self, Problem> {
        let mut config = Self {
            upstreams: Vec::new(),
            routes: Vec::new(),
            limits: Vec::new(),
            waf: None,
            cache: None,
            cluster: None,
            shows_generation: wire.generation_header,
            lines: Vec::new(),
            file: file.to_owned(),
        };
        config.add_upstreams(wire)?;
        for limit in &wire.limit {
            let span = limit.span();
            config
                .add_limit(limit.get_ref())
                .map_err(|problem| (span, problem))?;
        }
        for route in &wire.route {
            let (span, name) = (route.span(), &route.get_ref().name);
            config.lines.push(line(text, span.start));
            let route = config.route(route.get_ref());
            let route = route.map_err(|problem| (span, format!("route '{name}': {problem}")))?;
            config.routes.push(route);
        }
        if let Some(waf) = &wire.waf {
            let read = rules(waf.get_ref(), beside).map_err(|problem| (waf.span(), problem))?;
            config.waf = Some(read);
        }
        config.cache = wire.cache.as_ref().map(|cache| {
            let cache = cache.get_ref();
            CacheConfig {
                bytes_max: cache.mib.saturating_mul(1 << 20),
                answer_bytes_max: cache.answer_kib_max.saturating_mul(1 << 10),
                key: KeyRules {
                    query: cache.query.into(),
                    query_ignore: cache.query_ignore.clone(),
                    headers: cache.headers.clone(),
                },
            }
        });
        if let Some(cluster) = &wire.cluster {
            let read = self::cluster(cluster.get_ref());
            config.cluster = Some(read.map_err(|problem| (cluster.span(), problem))?);
        }
        Ok(config)
    }

    fn add_upstreams(&mut self, wire: &WireConfig) -> Result<(), Problem> {
        for upstream in &wire.upstream {
            let (span, upstream) = (upstream.span(), upstream.get_ref());
            let name = &upstream.name;
            let fail = |problem: String| (span.clone(), format!("upstream '{name}': {problem}"));
            if self.upstreams.iter().any(|other| other.name == *name) {
                return Err(fail("there are two of this name; rename one".to_owned()));
            }
            let places = upstream.targets.iter().map(|target| {
                Place::parse(target).map_err(|why| fail(format!("'{target}': {why}")))
            });
            let places: Vec<_> = places.collect::<Result<_, _>>()?;
            if places.is_empty() {
                return Err(fail("'targets' is empty: expected one at least".to_owned()));
            }
            if !(1..=86_400).contains(&upstream.timeout_seconds) {
                return Err(fail("'timeout-seconds': expected 1 to 86400".to_owned()));
            }
            let timeout = Duration::from_secs(upstream.timeout_seconds);
            let limits = UpstreamLimits {
                connect: timeout.min(Duration::from_secs(5)),
                head: timeout,
                idle: timeout,
                total: Duration::from_secs(3_600).max(timeout),
                retries_max: upstream.retries_max.min(10),
            };
            self.upstreams.push(Upstream {
                name: name.clone(),
                places,
                limits,
            });
        }
        match self.upstreams.len() {
            0 => Err((
                0..0,
                "there is no [[upstream]]: expected one at least".to_owned(),
            )),
            1 => Ok(()),
            _ if wire.route.is_empty() => {
                let problem = "there are several upstreams and no [[route]] to tell which is asked";
                Err((0..0, problem.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn add_limit(&mut self, wire: &WireLimit) -> Result<(), String> {
        let name = &wire.name;
        if self.limits.iter().any(|other| other.name == *name) {
            return Err(format!(
                "limit '{name}': there are two of this name; rename one"
            ));
        }
        if wire.requests == 0 {
            return Err(format!("limit '{name}': 'requests': expected 1 or more"));
        }
        let limit = Limit {
            name: name.clone(),
            requests: wire.requests,
            window_ms: wire.window_ms,
            scope: match wire.scope {
                WireScope::Client => Scope::Client,
                WireScope::All => Scope::All,
            },
        };
        limit.check().map_err(|error| error.to_string())?;
        self.limits.push(limit);
        Ok(())
    }

    fn route(&self, wire: &WireRoute) -> Result<routes::Route<Leads>, String> {
        let upstream = match &wire.upstream {
            Some(name) => {
                let found = self.upstreams.iter().position(|it| it.name == *name);
                found.ok_or_else(|| format!("no [[upstream]] has the name '{name}'"))?
            }
            None if self.upstreams.len() == 1 => 0,
            None => return Err("expected 'upstream', since there are several".to_owned()),
        };
        let limits = wire.limits.iter().map(|name| {
            let found = self.limits.iter().position(|limit| limit.name == *name);
            found.ok_or_else(|| format!("no [[limit]] has the name '{name}'"))
        });
        let path = wire.path.clone();
        Ok(routes::Route {
            host: wire.host.clone(),
            methods: wire.methods.clone(),
            path: match wire.kind {
                Kind::Exact => routes::Path::Exact(path),
                Kind::Prefix => routes::Path::Prefix(path),
                Kind::Wildcard => routes::Path::Wildcard(path),
                Kind::Regex => routes::Path::Regex(path),
            },
            priority: wire.priority,
            target: Leads {
                name: wire.name.clone(),
                upstream,
                limits: limits.collect::<Result<_, _>>()?,
                is_inspected: wire.waf,
                is_cached: wire.cache,
            },
        })
    }

    /// Says where in the file a route is that can't be used.
    pub(crate) fn at_route(&self, error: &routes::RouteError) -> ConfigError {
        let name = &self.routes[error.index].target.name;
        ConfigError {
            file: self.file.clone(),
            line: self.lines.get(error.index).copied().unwrap_or(1),
            problem: format!("route '{name}': {}", error.problem),
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read =
        File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(format!(
            "it is too large: expected {FILE_BYTES_MAX} bytes at most"
        )),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("could not be read: {error}")),
    }
}

fn rules(wire: &WireWaf, beside: &Path) -> Result<(Settings, Rules), String> {
    let settings = Settings {
        mode: wire.mode,
        paranoia: wire.paranoia,
        threshold: wire.threshold,
        complete: false,
        exclusions: wire.exclude.clone(),
        limits: wire.limits.clone(),
    };
    let mut rules = Rules::builtin().map_err(|error| error.to_string())?;
    for name in &wire.rules {
        let text = read(&beside.join(name)).map_err(|why| format!("rules '{name}': {why}"))?;
        rules.add(name, &text).map_err(|error| error.to_string())?;
    }
    Ok((settings, rules))
}

fn cluster(wire: &WireCluster) -> Result<Cluster, String> {
    let listen = wire.listen.parse().map_err(|_| {
        let found = &wire.listen;
        format!("cluster: 'listen': expected an address and a port, found '{found}'")
    })?;
    let peers = wire
        .peers
        .iter()
        .map(|peer| Place::parse(peer).map_err(|why| format!("cluster: peer '{peer}': {why}")));
    if wire.secret.len() < 16 {
        return Err("cluster: 'secret': expected 16 characters or more".to_owned());
    }
    if !(10..=60_000).contains(&wire.interval_ms) {
        return Err("cluster: 'interval-ms': expected 10 to 60000".to_owned());
    }
    Ok(Cluster {
        listen,
        peers: peers.collect::<Result<_, _>>()?,
        secret: wire.secret.clone(),
        interval: Duration::from_millis(wire.interval_ms),
    })
}

/// Returns the line of a place in a text; the first is 1.
fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}
