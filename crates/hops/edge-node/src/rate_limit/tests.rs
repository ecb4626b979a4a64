use std::{collections::VecDeque, thread};

use proptest::prelude::*;

use super::*;
use crate::crdt::{ActorId, Exchange, wire::Codec};

/// A multiple of every window that is used here.
const T0: u64 = 1_000_000_000;

fn limit(requests: u32, scope: Scope) -> Limit {
    Limit {
        name: "test".to_owned(),
        requests,
        window_ms: 1_000,
        scope,
    }
}

fn store(node: u8, keys_max: usize) -> Arc<Store> {
    Arc::new(Store::new(ActorId::from_bytes([node; 16]), keys_max))
}

fn limiter(requests: u32, scope: Scope) -> Limiter {
    Limiter::new(limit(requests, scope), store(1, 1_000), b"").expect("valid")
}

fn is_allowed(decision: Decision) -> bool {
    matches!(decision, Decision::Allowed { .. })
}

#[test]
fn as_many_pass_as_the_limit_says() {
    for scope in [Scope::Client, Scope::All] {
        let limiter = limiter(3, scope);
        for remaining in [2, 1, 0] {
            assert_eq!(limiter.decide(b"a", T0), Decision::Allowed { remaining });
        }
        assert!(!is_allowed(limiter.decide(b"a", T0 + 999)));
        assert_eq!(is_allowed(limiter.decide(b"b", T0)), scope == Scope::Client);
        limiter.take_back(b"a", T0);
        assert!(is_allowed(limiter.decide(b"a", T0)));
        assert!(!is_allowed(limiter.decide(b"a", T0)));
        // All of the window before counts at the border, half of it in the middle, then none.
        assert!(!is_allowed(limiter.decide(b"a", T0 + 1_000)));
        assert_eq!(
            limiter.decide(b"a", T0 + 1_500),
            Decision::Allowed { remaining: 1 }
        );
        assert_eq!(
            limiter.decide(b"a", T0 + 9_000),
            Decision::Allowed { remaining: 2 }
        );
    }
}

#[test]
fn a_limit_of_none_and_windows_that_are_none() {
    assert!(!is_allowed(limiter(0, Scope::Client).decide(b"a", T0)));
    assert!(!is_allowed(limiter(0, Scope::All).decide(b"a", u64::MAX)));
    for window_ms in [0, 99, 86_400_001, u32::MAX] {
        let limit = Limit {
            window_ms,
            ..limit(1, Scope::All)
        };
        let error = Limiter::new(limit, store(1, 9), b"").expect_err("refused");
        assert!(error.to_string().contains("'test'"), "{error}");
    }
}

proptest! {
    /// One that waits as long as it is told may pass, and not a millisecond sooner.
    #[test]
    fn retry_after_is_exact(
        requests in 1..20u32,
        waits in prop::collection::vec(0..700u64, 1..60),
    ) {
        for scope in [Scope::Client, Scope::All] {
            let limiter = limiter(requests, scope);
            let mut now_ms = T0;
            for wait_ms in &waits {
                now_ms += wait_ms / 8;
                let Decision::Refused { retry_after_ms } = limiter.decide(b"a", now_ms) else {
                    continue;
                };
                prop_assert!(!is_allowed(limiter.decide(b"a", now_ms + retry_after_ms - 1)));
                now_ms += retry_after_ms;
                prop_assert!(is_allowed(limiter.decide(b"a", now_ms)));
            }
        }
    }
}

#[test]
fn memory_is_bounded_and_none_escapes_its_limit() {
    let store = store(1, 64 * 16);
    let limiter = Limiter::new(limit(2, Scope::Client), Arc::clone(&store), b"").expect("valid");
    let mut admitted = 0;
    for client in 0..100_000u32 {
        admitted += usize::from(is_allowed(limiter.decide(&client.to_be_bytes(), T0)));
    }
    let counts = store.counts();
    assert!(counts.keyed <= 64 * 17, "{counts:?}");
    assert!(counts.crowded > 90_000, "{counts:?}");
    assert!(admitted <= 64 * 18, "{admitted}");
    // In the next window there is room again.
    assert!(is_allowed(limiter.decide(b"new", T0 + 1_000)));
    assert!(store.counts().dropped > 0);
    store.expire(T0 + 10_000);
    assert_eq!(store.counts().keyed, 0);
}

#[test]
fn threads_share_a_limit() {
    for scope in [Scope::Client, Scope::All] {
        let limiter = limiter(1_000, scope);
        let admitted: usize = thread::scope(|scope| {
            let count = || {
                (0..1_000)
                    .filter(|_| is_allowed(limiter.decide(b"a", T0)))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert!((900..=1_003).contains(&admitted), "{admitted} {scope:?}");
    }
}

/// The bound of this module's head, with nodes that exchange every `interval_ms`, messages that
/// take `way_ms`, and clients that ask at all nodes without end.
#[test]
fn the_error_over_several_nodes_is_bounded() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let nodes = random.usize(2..6);
        let interval_ms = random.u64(5..100);
        let way_ms = random.u64(1..50);
        let per_ms = random.u64(1..5);
        let requests = random.u32(20..2_000);
        let scope = [Scope::Client, Scope::All][random.usize(0..2)];
        let most = admitted_by(nodes, interval_ms, way_ms, per_ms, limit(requests, scope));
        // The news are as old as the interval and the way, and a millisecond for the steps.
        let unseen = (per_ms * (interval_ms + way_ms + 1)).min(requests.into());
        let bound = u64::from(requests) + (nodes as u64 - 1) * unseen;
        assert!(most <= bound, "seed {seed}: {most} of at most {bound}");
        let enough = u64::from(requests).min(per_ms * nodes as u64 * 900);
        assert!(most >= enough, "seed {seed}: only {most} of {requests}");
    }
}

/// Returns the most that passed in one window of three.
fn admitted_by(nodes: usize, interval_ms: u64, way_ms: u64, per_ms: u64, limit: Limit) -> u64 {
    let stores: Vec<_> = (1u8..).map(|node| store(node, 1_000)).take(nodes).collect();
    let limiters: Vec<_> = stores
        .iter()
        .map(|store| Limiter::new(limit.clone(), Arc::clone(store), b"s").expect("valid"))
        .collect();
    let exchanges: Vec<_> = stores
        .iter()
        .map(|store| Exchange::new(Arc::clone(store), Codec::new(b"s"), nodes))
        .collect();
    let mut on_the_way: VecDeque<(u64, usize, Vec<u8>)> = VecDeque::new();
    let mut passed = [0; 3];
    for step in 0..3_000 {
        let now_ms = T0 + step;
        while on_the_way.front().is_some_and(|(at, ..)| *at <= now_ms) {
            let (_, to, bytes) = on_the_way.pop_front().expect("there");
            exchanges[to].answer(&bytes, now_ms).expect("taken");
        }
        if step % interval_ms == 0 {
            for (from, exchange) in exchanges.iter().enumerate() {
                for to in (0..nodes).filter(|to| *to != from) {
                    let bytes = exchange.offer(to).expect("a peer");
                    on_the_way.push_back((now_ms + way_ms, to, bytes));
                }
            }
        }
        let passes = |limiter: &Limiter| {
            (0..per_ms)
                .filter(|_| is_allowed(limiter.decide(b"client", now_ms)))
                .count() as u64
        };
        let window = usize::try_from(step / 1_000).expect("small");
        passed[window] += limiters.iter().map(passes).sum::<u64>();
    }
    passed.into_iter().max().unwrap_or_default()
}
