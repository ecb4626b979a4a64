//! The inputs of the published figures, for the benchmarks that take time and those that count
//! instructions.

use edge_node::{
    cache_key::{Asked, CacheKey, CacheKeys, Scheme},
    crdt::{ActorId, State, Totals},
    routes::{Path, Route, Table},
    waf::{Request, Rules, Scratch, Settings, Waf},
};

/// The fields of every request that the WAF judges.
const HEADERS: [(&[u8], &[u8]); 2] = [
    (b"host", b"example.com"),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0",
    ),
];

pub(crate) const CLEAN: &str = "/api/users";
pub(crate) const SQLI: &str = "/login?username=admin'%20OR%20'1'='1";
pub(crate) const QUERY: &str = "page=2&sort=name";

/// A WAF with the built-in rules, and the memory that it judges in.
#[derive(Debug)]
pub(crate) struct Judge {
    waf: Waf,
    scratch: Scratch,
}

impl Judge {
    pub(crate) fn new() -> Self {
        let rules = Rules::builtin().expect("the built-in rules");
        Self {
            waf: Waf::new(Settings::default(), rules).expect("they fit"),
            scratch: Scratch::default(),
        }
    }

    /// Whether a request with these fields more and this body is blocked.
    pub(crate) fn judge(&mut self, target: &str, more: &[(&[u8], &[u8])], body: &[u8]) -> bool {
        let request = Request {
            method: if body.is_empty() { b"GET" } else { b"POST" },
            target: target.as_bytes(),
            headers: HEADERS.iter().chain(more).copied(),
            body,
        };
        self.waf.inspect(request, &mut self.scratch).is_blocked
    }
}

/// Four routes, as in the published benchmark: the exact one is first, and the regex second.
pub(crate) fn four_routes() -> Table<usize> {
    let path = |kind: fn(String) -> Path, text: &str| kind(text.to_owned());
    table(vec![
        path(Path::Exact, "/api/users"),
        path(Path::Regex, r"^/api/users/\d+$"),
        path(Path::Prefix, "/static"),
        path(Path::Wildcard, "/other/*"),
    ])
}

/// A table in which each route leads to its place in the list.
pub(crate) fn table(paths: Vec<Path>) -> Table<usize> {
    let route = |(target, path)| Route {
        host: None,
        methods: Vec::new(),
        path,
        priority: 0,
        target,
    };
    Table::compile(paths.into_iter().enumerate().map(route).collect()).expect("valid routes")
}

/// The place of the route that a path has.
pub(crate) fn find(table: &Table<usize>, path: &str) -> Option<usize> {
    table
        .find("example.com", "GET", path)
        .map(|found| found.index)
}

pub(crate) const OURS: ActorId = ActorId::from_bytes([1; 16]);

/// The state of so many actors, each at `ups`.
pub(crate) fn state(actors: u8, ups: u64) -> State {
    let actor = |byte: u8| (ActorId::from_bytes([byte; 16]), Totals { ups, downs: 0 });
    (2..=actors + 1).map(actor).collect()
}

/// The key of a GET for a path and a query, with the values of the fields that the rules name.
pub(crate) fn key(
    keys: &CacheKeys,
    headers: &[(&str, &str)],
    host: &str,
    path: &str,
    query: &str,
) -> CacheKey {
    let asked = Asked {
        method: "GET",
        scheme: Scheme::Http,
        host,
        path,
        query: Some(query),
    };
    keys.key(&asked, |name, each| {
        for (_, value) in headers.iter().filter(|(found, _)| *found == name) {
            each(value.as_bytes());
        }
    })
}
