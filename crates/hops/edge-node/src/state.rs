//! State that all threads share.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use http_proxy::ProxyCounters;
use tokio_util::sync::CancellationToken;

use crate::{crdt::Store, plan::Plan, waf::Verdict};

service::counters! {
    /// Counters of an edge node.
    pub struct Counters, "edge_" {
        /// requests that the WAF refused
        waf_blocked: Counter, "requests";
        /// requests in which the WAF found an attack, refused or not
        waf_attacks: Counter, "requests";
        /// requests that no route took
        requests_unrouted: Counter, "requests";
        /// requests beyond a limit
        requests_limited: Counter, "requests";
        /// requests answered from the cache
        cache_hits: Counter, "requests";
        /// requests that the cache could not answer
        cache_misses: Counter, "requests";
        /// answers put into the cache
        cache_stored: Counter, "answers";
        /// configurations taken
        reloads: Counter, "configurations";
        /// configurations refused
        reloads_refused: Counter, "configurations";
        /// exchanges of counters with other nodes
        exchanges: Counter, "exchanges";
        /// exchanges that failed
        exchanges_failed: Counter, "exchanges";
        /// messages of other nodes that were not taken
        messages_refused: Counter, "messages";
        /// counts of other nodes that are impossible, and were not taken
        counts_refused: Counter, "counts";
        /// lines about attacks that were left out of the log
        attack_lines_dropped: Counter, "lines";
    }
}

/// State that all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) plan: ArcSwap<Plan>,
    pub(crate) store: Arc<Store>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) http_counters: Arc<ProxyCounters>,
    /// Cancelled when the process is told to stop.
    pub(crate) stop: CancellationToken,
}

/// Most lines about attacks in a second. A flood of attacks shall not become a flood of lines.
const ATTACK_LINES_MAX: u64 = 100;

/// The second of now in the upper half, the lines in it in the lower one.
static ATTACK_LINES: AtomicU64 = AtomicU64::new(0);

impl Counters {
    /// Counts an attack, and says in the log why it is one.
    pub(crate) fn note(&self, verdict: &Verdict, client: IpAddr, method: &str, path: &str) {
        self.waf_attacks.add(1);
        if verdict.is_blocked {
            self.waf_blocked.add(1);
        }
        let second = u64::try_from(now_ms()).unwrap_or_default() / 1_000;
        let before = ATTACK_LINES.fetch_update(Relaxed, Relaxed, |before| {
            Some(match before >> 32 == second {
                true => before + 1,
                false => second << 32,
            })
        });
        let before = before.unwrap_or_else(|before| before);
        if before >> 32 == second && before & u64::from(u32::MAX) >= ATTACK_LINES_MAX {
            return self.attack_lines_dropped.add(1);
        }
        let fate = if verdict.is_blocked {
            "refused"
        } else {
            "seen"
        };
        for found in &verdict.matches {
            let (rule, place, field) = (&found.rule, found.place, &found.field);
            let excerpt = &found.excerpt;
            tracing::warn!(
                "attack {fate}: {client} {method} {path:?}: rule '{rule}' at {place:?} {field:?}: \
                 {excerpt:?}"
            );
        }
    }
}

/// Returns the time of now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
