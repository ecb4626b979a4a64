//! State that all threads share.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use http_proxy::ProxyCounters;
use tokio_util::sync::CancellationToken;

use crate::{attack_log::AttackLog, crdt::Store, plan::Plan};

service::counters! {
    /// Counters of an edge node.
    pub struct Counters, "edge_" {
        /// requests that the WAF refused
        waf_blocked: Counter, "requests";
        /// requests in which the WAF found an attack, refused or not
        waf_attacks: Counter, "requests";
        /// requests that no route took
        requests_unrouted: Counter, "requests";
        /// requests without a token
        requests_unauthorised: Counter, "requests";
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
    pub(crate) attacks: AttackLog,
    pub(crate) counters: Arc<Counters>,
    pub(crate) http_counters: Arc<ProxyCounters>,
    /// Cancelled when the process is told to stop.
    pub(crate) stop: CancellationToken,
}

/// Returns the time of now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
