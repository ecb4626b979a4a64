//! Counts the instructions of the parts whose time is published, so that a small change shows on
//! any machine. Each verdict is asserted, and all memory is warm, before the count begins.
//!
//! `cargo bench -p edge-node --bench instructions`; needs valgrind, and gungraun-runner in the
//! version of gungraun in Cargo.lock (`cargo install gungraun-runner`).

#![expect(
    clippy::exit,
    missing_docs,
    unused_qualifications,
    reason = "the harness's macros write them"
)]

mod inputs;

use std::hint::black_box;

use edge_node::{
    cache_key::{CacheKey, CacheKeys, KeyRules, QueryRule},
    crdt::{PnCounter, State},
    routes::Table,
};
use gungraun::{library_benchmark, library_benchmark_group, main};
use inputs::{CLEAN, Judge, OURS, QUERY, SQLI};

/// A judge that has judged the request, as expected.
fn judge(target: &'static str, is_blocked: bool) -> (Judge, &'static str) {
    let mut judge = Judge::new();
    for _ in 0..3 {
        assert_eq!(judge.judge(target, &[], b""), is_blocked, "{target}");
    }
    (judge, target)
}

#[library_benchmark]
#[bench::clean(args = (CLEAN, false), setup = judge)]
#[bench::sqli(args = (SQLI, true), setup = judge)]
fn waf((mut judge, target): (Judge, &str)) -> (bool, Judge) {
    (judge.judge(black_box(target), &[], b""), judge)
}

/// The published routes, after a look-up that found the expected one.
fn routes(path: &'static str, expected: usize) -> (Table<usize>, &'static str) {
    let table = inputs::four_routes();
    assert_eq!(inputs::find(&table, path), Some(expected), "{path}");
    (table, path)
}

#[library_benchmark]
#[bench::exact(args = ("/api/users", 0), setup = routes)]
#[bench::regex(args = ("/api/users/123", 1), setup = routes)]
fn route((table, path): (Table<usize>, &str)) -> (Option<usize>, Table<usize>) {
    (inputs::find(&table, black_box(path)), table)
}

fn counter() -> PnCounter {
    let counter = PnCounter::new(OURS);
    counter.increment(1);
    assert_eq!(counter.value(), 1);
    counter
}

#[library_benchmark]
#[bench::one(setup = counter)]
fn crdt_increment(counter: PnCounter) -> PnCounter {
    counter.increment(black_box(1));
    counter
}

/// A counter and a state that is 5 ahead of what it knows.
fn ahead() -> (PnCounter, State) {
    let counter = PnCounter::new(OURS);
    counter.merge(&inputs::state(1, 100));
    assert_eq!(counter.merge(&inputs::state(1, 105)).change, 5);
    assert_eq!(counter.merge(&inputs::state(1, 105)).change, 0);
    (counter, inputs::state(1, 110))
}

#[library_benchmark]
#[bench::one(setup = ahead)]
fn crdt_merge((counter, state): (PnCounter, State)) -> (PnCounter, State) {
    counter.merge(black_box(&state));
    (counter, state)
}

fn keys() -> CacheKeys {
    let rules = KeyRules {
        query: QueryRule::AsWritten,
        query_ignore: Vec::new(),
        headers: Vec::new(),
    };
    let keys = CacheKeys::new(rules).expect("random numbers");
    let key = |host, path| inputs::key(&keys, &[], host, path, QUERY);
    assert_eq!(
        key("Example.com:80", "/api/%75sers"),
        key("example.com", CLEAN)
    );
    assert_ne!(key("example.com", "/api/user"), key("example.com", CLEAN));
    keys
}

#[library_benchmark]
#[bench::one(setup = keys)]
fn cache_key(keys: CacheKeys) -> (CacheKey, CacheKeys) {
    let key = inputs::key(
        &keys,
        &[],
        black_box("example.com"),
        black_box(CLEAN),
        QUERY,
    );
    (key, keys)
}

library_benchmark_group!(
    name = published,
    benchmarks = [waf, route, crdt_increment, crdt_merge, cache_key]
);
main!(library_benchmark_groups = published);
