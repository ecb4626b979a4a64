//! Measures the parts of the pipeline one by one, each as the pipeline calls it. A benchmark
//! asserts its verdict before it measures.
//!
//! `cargo bench -p edge-node`. The names without a slash have the inputs of the published figures;
//! those with one are harder.

mod inputs;

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use criterion::Criterion;
use edge_node::{
    cache_key::{CacheKeys, KeyRules, QueryRule},
    crdt::{PnCounter, Store},
    rate_limit::{Decision, Limit, Limiter, Scope},
    routes::{Path, Table},
};
use inputs::{CLEAN, Judge, OURS, QUERY, SQLI, state};

fn look_up(c: &mut Criterion, name: &str, table: &Table<usize>, path: &str, to: Option<usize>) {
    assert_eq!(inputs::find(table, path), to, "{name}");
    c.bench_function(name, |b| b.iter(|| inputs::find(table, black_box(path))));
}

/// The published inputs, and bodies of growing length.
fn waf(c: &mut Criterion) {
    let mut judge = Judge::new();
    for (name, target, is_blocked) in [
        ("waf_clean", CLEAN, false),
        ("waf_sqli", SQLI, true),
        ("waf/query", "/search?q=green+tea&page=2&sort=price", false),
    ] {
        assert_eq!(judge.judge(target, &[], b""), is_blocked, "{name}");
        c.bench_function(name, |b| {
            b.iter(|| judge.judge(black_box(target), &[], b""))
        });
    }
    let form: (&[u8], &[u8]) = (b"content-type", b"application/x-www-form-urlencoded");
    let json: (&[u8], &[u8]) = (b"content-type", b"application/json");
    let values = (0..640).map(|n| format!("\"name {n}\":\"value {n} x\""));
    let values = format!("{{{}}}", values.collect::<Vec<_>>().join(","));
    let pairs = |bytes: usize| -> String {
        let pairs = (0..).map(|n| format!("field{n}=some+words+of+text+{n}"));
        let mut all = String::new();
        for pair in pairs {
            if all.len() + pair.len() >= bytes {
                return all;
            }
            all += &format!("{pair}&");
        }
        all
    };
    for (name, kind, body) in [
        ("waf/form_1k", form, pairs(1 << 10)),
        ("waf/form_16k", form, pairs(1 << 14)),
        ("waf/json_640_values", json, values),
        (
            "waf/text_128k",
            (form.0, b"text/plain".as_slice()),
            "plain words ".repeat(10_000),
        ),
    ] {
        let body = body.as_bytes();
        assert!(!judge.judge("/", &[kind], body), "{name}");
        c.bench_function(name, |b| {
            b.iter(|| judge.judge("/", &[kind], black_box(body)))
        });
    }
}

fn routes(c: &mut Criterion) {
    let four = inputs::four_routes();
    look_up(c, "route_exact", &four, "/api/users", Some(0));
    look_up(c, "route_regex", &four, "/api/users/123", Some(1));
    look_up(c, "route_four/prefix", &four, "/static/app.js", Some(2));
    look_up(c, "route_four/wildcard", &four, "/other/page", Some(3));
    for count in [100, 1_000, 10_000] {
        many(c, count);
    }
}

/// So many routes of each kind.
fn many(c: &mut Criterion, count: usize) {
    type Make = fn(usize) -> Path;
    let kinds: [(&str, Make, &str); 4] = [
        ("exact", |n| Path::Exact(format!("/svc{n}/items")), ""),
        ("prefix", |n| Path::Prefix(format!("/svc{n}/items")), "/7/x"),
        (
            "wildcard",
            |n| Path::Wildcard(format!("/svc{n}/*/items")),
            "",
        ),
        (
            "regex",
            |n| Path::Regex(format!(r"^/svc{n}/v\d+/items$")),
            "",
        ),
    ];
    for (kind, make, rest) in kinds {
        let table = inputs::table((0..count).map(make).collect());
        let between = match kind {
            "wildcard" => "/a",
            "regex" => "/v2",
            _ => "",
        };
        for (which, number) in [("first", 0), ("last", count - 1), ("none", count)] {
            let path = format!("/svc{number}{between}/items{rest}");
            let name = format!("route_{kind}/{count}_{which}");
            look_up(c, &name, &table, &path, (number < count).then_some(number));
        }
    }
}

fn counters(c: &mut Criterion) {
    let counter = PnCounter::new(OURS);
    counter.increment(1);
    assert_eq!(counter.value(), 1);
    c.bench_function("crdt_increment", |b| {
        b.iter(|| counter.increment(black_box(1)))
    });
    for others in 1..thread::available_parallelism().map_or(1, usize::from) {
        contended(c, &counter, others);
    }
    c.bench_function("crdt_value", |b| b.iter(|| counter.value()));

    let counter = PnCounter::new(OURS);
    counter.merge(&state(1, 100));
    assert_eq!(counter.merge(&state(1, 105)).change, 5);
    assert_eq!(
        counter.merge(&state(1, 105)).change,
        0,
        "a merge is idempotent"
    );
    assert_eq!(counter.value(), 105);
    // Each state is 5 ahead of the one before, so that each merge has something to do.
    let mut ups = 105;
    let ahead = |ups: &mut u64, actors| {
        *ups = (*ups + 5) % (1 << 48);
        state(actors, *ups)
    };
    c.bench_function("crdt_merge", |b| {
        b.iter_batched_ref(
            || ahead(&mut ups, 1),
            |state| counter.merge(black_box(state)),
            criterion::BatchSize::SmallInput,
        );
    });
    for actors in [1, 16, 128] {
        let counter = PnCounter::new(OURS);
        let name = format!("crdt_merge/actors_{actors}");
        c.bench_function(&name, |b| {
            b.iter_batched_ref(
                || ahead(&mut ups, actors),
                |state| counter.merge(black_box(state)),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

/// One thread's increments while others count as fast as they can.
fn contended(c: &mut Criterion, counter: &PnCounter, others: usize) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    counter.increment(1);
                }
            });
        }
        let name = format!("crdt_increment/threads_{}", others + 1);
        c.bench_function(&name, |b| b.iter(|| counter.increment(black_box(1))));
        is_over.store(true, Relaxed);
    });
}

fn limits(c: &mut Criterion) {
    const NOW_MS: u64 = 1_000_000_000;
    let store = Arc::new(Store::new(OURS, 1_000_000));
    let limiter = |name: &str, requests, scope| {
        let limit = Limit {
            name: name.to_owned(),
            requests,
            window_ms: 60_000,
            scope,
        };
        Limiter::new(limit, Arc::clone(&store), b"secret").expect("valid limit")
    };
    let decide = |limiter: &Limiter, client: u32| {
        let decision = limiter.decide(&client.to_be_bytes(), NOW_MS);
        matches!(decision, Decision::Allowed { .. })
    };
    for (name, requests, scope) in [
        ("rate_limit/client_allowed", u32::MAX, Scope::Client),
        ("rate_limit/client_refused", 1, Scope::Client),
        ("rate_limit/all_allowed", u32::MAX, Scope::All),
        ("rate_limit/all_refused", 1, Scope::All),
    ] {
        let limiter = limiter(name, requests, scope);
        assert!(decide(&limiter, 7), "{name}: the first passes");
        assert_eq!(decide(&limiter, 7), requests > 1, "{name}");
        c.bench_function(name, |b| b.iter(|| decide(&limiter, black_box(7))));
    }
    let limiter = limiter("rate_limit/clients_1000000", u32::MAX, Scope::Client);
    let mut client = 0u32;
    c.bench_function("rate_limit/clients_1000000", |b| {
        b.iter(|| {
            client = (client + 7_919) % 1_000_000;
            decide(&limiter, client)
        });
    });
}

fn cache_keys(c: &mut Criterion) {
    let rules = |query, headers: &[&str]| KeyRules {
        query,
        query_ignore: match query {
            QueryRule::Sorted => vec!["utm_source".to_owned(), "utm_medium".to_owned()],
            _ => Vec::new(),
        },
        headers: headers.iter().map(|name| (*name).to_owned()).collect(),
    };
    let headers = [
        ("accept", "text/html"),
        ("accept-language", "de-DE,de;q=0.9,en;q=0.8"),
    ];
    let short = QUERY;
    let turned = "sort=name&page=2&utm_source=x";
    let long: String = (0..40)
        .map(|n| format!("parameter{}=value{n}&", n * 7 % 40))
        .collect();
    let plain = rules(QueryRule::AsWritten, &[]);
    let sorted = rules(QueryRule::Sorted, &[]);
    let negotiated = rules(QueryRule::AsWritten, &["accept", "accept-language"]);
    for (name, rules, path, query) in [
        ("cache_key", &plain, "/api/users", short),
        ("cache_key/sorted", &sorted, "/api/users", short),
        ("cache_key/sorted_turned", &sorted, "/api/users", turned),
        ("cache_key/dots", &plain, "/api/./v1/../users", short),
        ("cache_key/headers", &negotiated, "/api/users", short),
        ("cache_key/long_query", &plain, "/api/users", &long),
        ("cache_key/long_query_sorted", &sorted, "/api/users", &long),
    ] {
        let keys = CacheKeys::new(rules.clone()).expect("random numbers");
        let key = |host, path| inputs::key(&keys, &headers, host, path, query);
        assert_eq!(
            key("Example.com:80", "/api/%75sers"),
            key("example.com", path),
            "{name}"
        );
        assert_ne!(
            key("example.com", "/api/user"),
            key("example.com", path),
            "{name}"
        );
        c.bench_function(name, |b| {
            b.iter(|| key(black_box("example.com"), black_box(path)))
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    waf(&mut criterion);
    routes(&mut criterion);
    counters(&mut criterion);
    limits(&mut criterion);
    cache_keys(&mut criterion);
    criterion.final_summary();
}
