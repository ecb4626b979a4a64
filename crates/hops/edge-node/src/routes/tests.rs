use proptest::prelude::*;

use super::{pattern::Problem, *};

fn route(kind: &str, path: &str) -> Route<usize> {
    let path = path.to_owned();
    Route {
        host: None,
        methods: Vec::new(),
        path: match kind {
            "exact" => Path::Exact(path),
            "prefix" => Path::Prefix(path),
            "wildcard" => Path::Wildcard(path),
            _ => Path::Regex(path),
        },
        priority: 0,
        target: 0,
    }
}

fn at(host: &str, route: Route<usize>) -> Route<usize> {
    Route {
        host: Some(host.to_owned()),
        ..route
    }
}

fn by(methods: &[&str], route: Route<usize>) -> Route<usize> {
    Route {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        ..route
    }
}

fn found(routes: &[Route<usize>], host: &str, method: &str, path: &str) -> Option<usize> {
    let table = Table::compile(routes.to_vec()).expect("valid");
    table.find(host, method, path).map(|found| found.index)
}

#[test]
fn each_kind_matches_what_it_says() {
    for (kind, pattern, matching, others) in [
        ("exact", "/a", vec!["/a"], vec!["/a/", "/A", "/", ""]),
        (
            "exact",
            "/%61/../b%2f\u{e9}",
            vec!["/b%2F%C3%A9"],
            vec!["/a", "/b/\u{e9}"],
        ),
        ("exact", "*", vec!["*"], vec!["/", "/*"]),
        (
            "prefix",
            "/a",
            vec!["/a", "/a/", "/a/b"],
            vec!["/ab", "/", "a"],
        ),
        ("prefix", "/a/", vec!["/a/", "/a/b"], vec!["/a", "/ab/"]),
        ("prefix", "/", vec!["/", "/a", "//"], vec!["", "*"]),
        ("wildcard", "/*", vec!["/a"], vec!["/", "/a/", "/a/b"]),
        (
            "wildcard",
            "/a/*/c",
            vec!["/a/b/c"],
            vec!["/a//c", "/a/b/c/", "/a/c"],
        ),
        (
            "wildcard",
            "/a/**",
            vec!["/a/", "/a/b/c"],
            vec!["/a", "/ab"],
        ),
        (
            "wildcard",
            "/*/b/**",
            vec!["/a/b/", "/a/b/c"],
            vec!["//b/", "/a/b"],
        ),
        (
            "regex",
            r"^/a/\d+$",
            vec!["/a/1"],
            vec!["/a/", "/a/1/", "/b/a/1", "/a/\u{663}"],
        ),
        ("regex", "b", vec!["/abc"], vec!["/a"]),
    ] {
        for path in matching {
            assert_eq!(
                found(&[route(kind, pattern)], "h", "GET", path),
                Some(0),
                "{pattern} {path}"
            );
        }
        for path in others {
            assert_eq!(
                found(&[route(kind, pattern)], "h", "GET", path),
                None,
                "{pattern} {path}"
            );
        }
    }
}

#[test]
fn the_more_specific_route_wins() {
    let routes = [
        route("regex", "^/a"),
        route("wildcard", "/a/**"),
        route("prefix", "/a"),
        route("prefix", "/a/b"),
        route("wildcard", "/a/*/c"),
        route("exact", "/a/b/c"),
        by(&["PUT", "PURGE"], route("exact", "/a/b/c")),
        route("regex", "c$"),
    ];
    for (method, path, expected) in [
        ("GET", "/a/b/c", 5),
        ("PUT", "/a/b/c", 6),
        ("PURGE", "/a/b/c", 6),
        ("put", "/a/b/c", 5),
        ("GET", "/a/b/x", 3),
        ("GET", "/a/x/c", 4),
        ("GET", "/a/x", 1),
        ("GET", "/a", 2),
        ("GET", "/abc", 0),
        ("GET", "/c", 7),
    ] {
        assert_eq!(
            found(&routes, "h", method, path),
            Some(expected),
            "{method} {path}"
        );
    }
    let first = Route {
        priority: 1,
        ..route("regex", "b")
    };
    assert_eq!(
        found(&[route("exact", "/b"), first], "h", "GET", "/b"),
        Some(1)
    );
}

#[test]
fn hosts_are_told_apart() {
    let routes = [
        route("exact", "/"),
        at("*.example.com", route("exact", "/")),
        at("Example.com.", route("exact", "/")),
        at("*.b.example.com", route("exact", "/")),
        at("[::1]", route("exact", "/")),
        at("*.example.com", route("prefix", "/x")),
    ];
    for (host, path, expected) in [
        ("other", "/", Some(0)),
        ("example.com", "/", Some(2)),
        ("EXAMPLE.com:8080", "/", Some(2)),
        ("example.com.", "/", Some(2)),
        ("a.example.com", "/", Some(1)),
        ("a.b.example.com", "/", Some(3)),
        ("a.b.example.com", "/x", Some(5)),
        ("b.example.com", "/", Some(1)),
        ("notexample.com", "/", Some(0)),
        ("[::1]:80", "/", Some(4)),
        ("", "/", Some(0)),
        (".", "/", Some(0)),
        ("example.com", "/x", None),
    ] {
        assert_eq!(found(&routes, host, "GET", path), expected, "{host} {path}");
    }
    let long = "A.".repeat(5_000) + "example.com";
    assert_eq!(found(&routes, &long, "GET", "/"), Some(0));
}

#[test]
fn what_can_not_be_used_is_named() {
    let error = |routes: &[Route<usize>]| Table::compile(routes.to_vec()).expect_err("refused");
    let good = route("exact", "/");
    for (bad, expected) in [
        (route("exact", ""), "route 2: the path is empty"),
        (route("exact", "a"), "path 'a' does not begin with '/'"),
        (route("exact", "/a b"), "path '/a b' has a character"),
        (route("exact", "/"), "'/' is the same as that of route 1"),
        (by(&["GET", "G T"], route("exact", "/a")), "method 'G T'"),
        (route("wildcard", "/a*"), "wildcard 'a*'"),
        (route("wildcard", "/a"), "wildcard '/a'"),
        (route("wildcard", "/**/a"), "wildcard '**'"),
        (route("regex", "(a"), "regex '(a': unclosed group"),
        (route("regex", "(?:a{1000}){1000}"), "takes more than"),
        (at("a:80", route("exact", "/")), "host 'a:80'"),
        (at("*", route("exact", "/")), "host '*'"),
        (at("a..b", route("exact", "/")), "host 'a..b'"),
    ] {
        let error = error(&[good.clone(), bad]);
        assert_eq!(error.index, 1);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let same = [route("prefix", "/a/"), route("wildcard", "/a/**")];
    assert!(matches!(
        error(&same).problem,
        Problem::Same { first: 0, .. }
    ));
    let shared = [
        by(&["GET", "PUT"], good.clone()),
        by(&["PUT"], good.clone()),
    ];
    assert!(matches!(
        error(&shared).problem,
        Problem::Same { first: 0, .. }
    ));
    let open: Vec<_> = (1..300)
        .map(|n| route("regex", &format!("[a-z]{{{n}}}$")))
        .collect();
    assert!(matches!(
        error(&open).problem,
        Problem::TooManyOpenRegexes { .. }
    ));
}

/// A path that repeats the texts of all regexes costs each of them once.
#[test]
fn many_regexes_find_the_first_that_matches() {
    let routes: Vec<_> = (0..2_000)
        .map(|n| route("regex", &format!("/r{}/x{}$", n % 100, n / 100)))
        .collect();
    let table = Table::compile(routes).expect("valid");
    let index = |path: &str| table.find("", "GET", path).map(|found| found.index);
    assert_eq!(index("/r7/x3"), Some(307));
    assert_eq!(index("/r99/x19"), Some(1_999));
    assert_eq!(index("/r1/x20"), None);
    assert_eq!(index(&("/r1".repeat(2_000) + "/x1")), Some(101));
}

/// Whether a route matches, read off the documentation.
fn matches(route: &Route<usize>, host: &str, method: &str, path: &str) -> bool {
    let host_matches = match route.host.as_deref() {
        None => true,
        Some(pattern) => match pattern.strip_prefix('*') {
            Some(end) => host.ends_with(end),
            None => host == pattern,
        },
    };
    let method_matches = route.methods.is_empty() || route.methods.iter().any(|m| m == method);
    let path_matches = match &route.path {
        Path::Exact(text) => path == text,
        Path::Prefix(text) => path
            .strip_prefix(text.as_str())
            .is_some_and(|rest| text.ends_with('/') || rest.is_empty() || rest.starts_with('/')),
        Path::Wildcard(text) => wildcard_matches(text, path),
        Path::Regex(text) => regex_automata::meta::Regex::new(text)
            .expect("valid")
            .is_match(path),
    };
    host_matches && method_matches && path_matches
}

fn wildcard_matches(pattern: &str, path: &str) -> bool {
    let mut path = path.split('/');
    for part in pattern.split('/') {
        match (part, path.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(segment)) if !segment.is_empty() => {}
            (text, Some(segment)) if text == segment && text != "*" => {}
            _ => return false,
        }
    }
    path.next().is_none()
}

/// The precedence, read off the documentation; the smaller wins.
fn precedence(index: usize, route: &Route<usize>) -> impl Ord + use<> {
    let host = match route.host.as_deref() {
        None => (2, 0),
        Some(pattern) if pattern.starts_with('*') => (1, usize::MAX - pattern.split('.').count()),
        Some(_) => (0, 0),
    };
    let kind = match &route.path {
        Path::Exact(_) => 0,
        Path::Regex(_) => 2,
        _ => 1,
    };
    let classes: Vec<u8> = match &route.path {
        Path::Wildcard(text) => {
            let parts = text.split('/').skip(1);
            parts
                .map(|part| {
                    ["*", "**"]
                        .iter()
                        .position(|star| *star == part)
                        .map_or(0, |at| u8::try_from(at + 1).expect("small"))
                })
                .collect()
        }
        Path::Prefix(text) => {
            let open = if text.ends_with('/') { 2 } else { 3 };
            let segments = text.trim_end_matches('/').split('/').skip(1);
            segments.map(|_| 0).chain([open]).collect()
        }
        _ => Vec::new(),
    };
    (
        -i64::from(route.priority),
        host,
        kind,
        classes,
        route.methods.is_empty(),
        index,
    )
}

fn any_route() -> impl Strategy<Value = Route<usize>> {
    let host = prop::option::of(prop::sample::select(vec!["a.b", "*.a.b", "*.b", "c.a.b"]));
    let methods = prop::sample::select(vec![vec![], vec!["GET"], vec!["PUT", "PURGE"]]);
    let path = prop_oneof![
        "(/[ab]){1,4}/?|/".prop_map(Path::Exact),
        "(/[ab]){0,3}/?".prop_filter_map("empty", |p| (!p.is_empty()).then_some(Path::Prefix(p))),
        "(/[ab]|/[*]){0,3}(/[*]|/[*][*])".prop_map(Path::Wildcard),
        "\\^?/[ab.]{1,2}(/a|b|a\\+|/ab|\\[ab\\]){0,3}\\$?".prop_map(Path::Regex),
    ];
    (host, methods, path, -1..2i32).prop_map(|(host, methods, path, priority)| Route {
        host: host.map(str::to_owned),
        methods: methods.into_iter().map(str::to_owned).collect(),
        path,
        priority: priority / 2,
        target: 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]
    #[test]
    fn the_table_finds_what_a_search_of_all_routes_finds(
        routes in prop::collection::vec(any_route(), 1..24),
        asked in prop::collection::vec(
            ("(c[.]|x[.])?(a[.])?b", "GET|PUT|PURGE|LOCK", "(/[ab]{0,2}){0,4}/?"), 1..12),
    ) {
        let mut kept = routes;
        // Of routes that are the same, the first stays.
        let table = loop {
            match Table::compile(kept.clone()) {
                Ok(table) => break table,
                Err(error) => kept.remove(error.index),
            };
        };
        for (host, method, path) in asked {
            let matching = kept.iter().enumerate()
                .filter(|(_, route)| matches(route, &host, &method, &path));
            let best = matching.min_by_key(|(index, route)| precedence(*index, route));
            let found = table.find(&host, &method, &path).map(|found| found.index);
            prop_assert_eq!(found, best.map(|(index, _)| index), "{} {} {}", host, method, path);
        }
    }
}
