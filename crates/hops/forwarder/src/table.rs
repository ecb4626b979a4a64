//! The routes as workers use them, and how one set takes the place of another.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http_proxy::{AccessLog, Place, Upstreams};
use service::ConnectionLimit;

use crate::config::{Config, HttpSettings, Route};

/// The route or routes of a port.
#[derive(Clone, Debug)]
pub(crate) enum Port {
    Tcp(Arc<TcpRoute>),
    Http(Arc<HttpRoutes>),
}

/// A port that is forwarded as it is.
#[derive(Debug)]
pub(crate) struct TcpRoute {
    pub(crate) route: Route,
    pub(crate) limit: Option<ConnectionLimit>,
}

/// The HTTP routes of a port, by host.
#[derive(Debug, Default)]
pub(crate) struct HttpRoutes {
    exact: HashMap<String, Arc<HttpRoute>>,
    /// By what the host ends with, with a dot first; the longest first.
    ends: Vec<(String, Arc<HttpRoute>)>,
    fallback: Option<Arc<HttpRoute>>,
}

/// An HTTP route.
#[derive(Debug)]
pub(crate) struct HttpRoute {
    pub(crate) route: Route,
    pub(crate) name: Arc<str>,
    pub(crate) http: HttpSettings,
    /// `None` if each request names its target.
    pub(crate) upstreams: Option<Arc<Upstreams>>,
    pub(crate) log: Option<Arc<AccessLog>>,
    /// Requests being answered.
    pub(crate) busy: AtomicUsize,
}

/// The ports of a configuration.
pub(crate) type Table = BTreeMap<Key, Port>;

/// Names a listening port, also across configurations.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) address: SocketAddr,
    /// The route's name, for port 0: each route that takes any free port has one of its own.
    pub(crate) own: Option<String>,
}

/// Builds the table of a configuration. Routes that have not changed are those of `old`, with their
/// connections, the places that are taken, and what is known of their targets' health.
pub(crate) fn build(config: &Config, old: &Table, log: Option<&Arc<AccessLog>>) -> Table {
    let known: HashMap<&str, &Arc<HttpRoute>> = old
        .values()
        .filter_map(|port| match port {
            Port::Http(routes) => Some(routes.all()),
            Port::Tcp(_) => None,
        })
        .flatten()
        .map(|route| (route.route.name.as_str(), route))
        .collect();
    let mut http: BTreeMap<Key, HttpRoutes> = BTreeMap::new();
    let mut table = Table::new();
    for route in &config.routes {
        let Some(settings) = &route.http else {
            let key = route.key();
            let port = match old.get(&key) {
                Some(Port::Tcp(same)) if same.route == *route => Port::Tcp(Arc::clone(same)),
                _ => Port::Tcp(Arc::new(TcpRoute::new(route))),
            };
            table.insert(key, port);
            continue;
        };
        let same = known
            .get(route.name.as_str())
            .filter(|old| old.route == *route);
        let built = match same {
            Some(same) => Arc::clone(same),
            None => Arc::new(HttpRoute::new(route, settings, log)),
        };
        http.entry(route.key()).or_default().insert(built);
    }
    for (key, mut routes) in http {
        routes
            .ends
            .sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        table.insert(key, Port::Http(Arc::new(routes)));
    }
    table
}

impl TcpRoute {
    fn new(route: &Route) -> Self {
        Self {
            limit: route.max_connections.map(ConnectionLimit::new),
            route: route.clone(),
        }
    }
}

impl HttpRoute {
    fn new(route: &Route, http: &HttpSettings, log: Option<&Arc<AccessLog>>) -> Self {
        let upstreams = (!route.targets.is_empty()).then(|| route.upstreams(http));
        Self {
            name: route.name.as_str().into(),
            http: http.clone(),
            upstreams: upstreams.map(Arc::new),
            log: log.filter(|_| http.log.is_some()).cloned(),
            busy: AtomicUsize::new(0),
            route: route.clone(),
        }
    }

    /// Takes a place within the route's limit, if it has one.
    ///
    /// # Errors
    /// If no place is left.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Option<Entered>, Full> {
        let Some(most) = self.route.max_connections else {
            return Ok(None);
        };
        let entered = Entered(Arc::clone(self));
        let before = self.busy.fetch_add(1, Relaxed);
        if before < most {
            Ok(Some(entered))
        } else {
            Err(Full)
        }
    }
}

/// A route has no place left.
#[derive(Debug)]
pub(crate) struct Full;

/// A place within a route's limit, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered(Arc<HttpRoute>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

impl Route {
    fn key(&self) -> Key {
        let address = self.listen;
        let own = (address.port() == 0).then(|| self.name.clone());
        Key { address, own }
    }

    fn upstreams(&self, http: &HttpSettings) -> Upstreams {
        Upstreams::new(self.targets.iter().cloned(), self.upstream_limits(http))
    }

    /// Returns the one place that a request has chosen.
    pub(crate) fn chosen(&self, http: &HttpSettings, address: SocketAddr) -> Upstreams {
        Upstreams::new([Place::Address(address)], self.upstream_limits(http))
    }
}

impl Port {
    /// Returns whether clients must begin with a header of the PROXY protocol. The routes of a port
    /// agree.
    pub(crate) fn accepts_proxy(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.route.accepts_proxy,
            Self::Http(routes) => routes.all().any(|route| route.route.accepts_proxy),
        }
    }

    /// Returns the names of its routes, for messages.
    pub(crate) fn names(&self) -> String {
        match self {
            Self::Tcp(tcp) => format!("'{}'", tcp.route.name),
            Self::Http(routes) => {
                let mut names: Vec<_> = routes
                    .all()
                    .map(|route| format!("'{}'", route.name))
                    .collect();
                names.sort_unstable();
                names.join(", ")
            }
        }
    }
}

impl HttpRoutes {
    fn insert(&mut self, route: Arc<HttpRoute>) {
        match route.http.host.clone() {
            None => self.fallback = Some(route),
            Some(host) => match host.strip_prefix('*') {
                Some(end) => self.ends.push((end.to_owned(), route)),
                None => drop(self.exact.insert(host, route)),
            },
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<HttpRoute>> {
        let ends = self.ends.iter().map(|(_, route)| route);
        self.exact.values().chain(ends).chain(&self.fallback)
    }

    /// Finds the route for a `Host`, which may have a port.
    pub(crate) fn find(&self, host: &str) -> Option<&Arc<HttpRoute>> {
        if self.exact.is_empty() && self.ends.is_empty() {
            return self.fallback.as_ref();
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let by_end = || {
            let is_end = |end: &str| name.len() > end.len() && name.ends_with(end);
            self.ends
                .iter()
                .find(|(end, _)| is_end(end))
                .map(|(_, route)| route)
        };
        let exact = self.exact.get(&name);
        exact.or_else(by_end).or(self.fallback.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn config(text: &str) -> Config {
        Config::parse(text, Overrides::default()).expect("valid")
    }

    fn route(name: &str, more: &str) -> String {
        format!(
            "[[routes]]\nenabled = true\nmode = 'http'\nlisten_port = 81\nname = '{name}'\n{more}\n"
        )
    }

    fn http(table: &Table) -> &Arc<HttpRoutes> {
        match table.values().next() {
            Some(Port::Http(routes)) => routes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_host_is_found_exactly_then_by_its_longest_end() {
        let text = route("exact", "host = 'a.b.example'")
            + &route("short", "host = '*.example'")
            + &route("long", "host = '*.b.example'")
            + &route("rest", "")
            + &route("six", "host = '::1'");
        let table = build(&config(&text), &Table::new(), None);
        for (host, name) in [
            ("a.b.example", "exact"),
            ("A.B.Example.:8080", "exact"),
            ("c.b.example", "long"),
            ("b.example", "short"),
            ("x.y.example:1", "short"),
            ("example", "rest"),
            ("", "rest"),
            ("[::1]:80", "six"),
        ] {
            let found = http(&table).find(host).expect("a fallback");
            assert_eq!(&*found.name, name, "{host}");
        }
    }

    #[test]
    fn routes_that_have_not_changed_stay() {
        let text = route("a", "host = 'a'") + &route("b", "host = 'b'");
        let old = build(&config(&text), &Table::new(), None);
        let changed = route("a", "host = 'a'") + &route("b", "host = 'b'\ntarget_port = 9");
        let new = build(&config(&changed), &old, None);
        let same = |host| {
            let find = |table| Arc::clone(http(table).find(host).expect(host));
            Arc::ptr_eq(&find(&old), &find(&new))
        };
        assert!(same("a"));
        assert!(!same("b"));
    }

    #[test]
    fn a_tcp_route_that_has_not_changed_keeps_its_limit() {
        let tcp = |table: &Table| match table.values().next() {
            Some(Port::Tcp(route)) => Arc::clone(route),
            other => panic!("{other:?}"),
        };
        let text = |more: &str| config(&format!("listen_port = 1\n{more}"));
        let old = build(&text(""), &Table::new(), None);
        let same = build(&text("log_requests = false"), &old, None);
        let changed = build(&text("target_port = 9"), &old, None);
        assert!(Arc::ptr_eq(&tcp(&old), &tcp(&same)));
        assert!(!Arc::ptr_eq(&tcp(&old), &tcp(&changed)));
    }

    #[test]
    fn a_route_takes_so_many_requests_at_a_time() {
        let table = build(
            &config(&route("a", "max_connections = 2")),
            &Table::new(),
            None,
        );
        let route = http(&table).find("x").expect("a fallback");
        let (first, second) = (route.enter(), route.enter());
        assert!(first.is_ok() && second.is_ok());
        assert!(route.enter().is_err());
        drop(first);
        assert!(route.enter().is_ok());
    }
}
