//! The counters of HTTP proxying.

service::counters! {
    /// Counters of HTTP proxying.
    pub struct ProxyCounters, "http_" {
        /// requests that hyper could read
        requests: Counter, "requests";
        /// requests refused because they were ambiguous, too large or not HTTP
        requests_refused: Counter, "requests";
        /// requests that no route took, or that were not allowed
        requests_unrouted: Counter, "requests";
        /// answers passed on whole
        answers_passed: Counter, "answers";
        /// answers that were cut off, by the upstream, the client or a time limit
        answers_cut: Counter, "answers";
        /// requests whose upstream could not be reached
        upstream_unreachable: Counter, "requests";
        /// requests that the upstream did not answer, or answered with what isn't HTTP
        upstream_failed: Counter, "requests";
        /// requests that the upstream did not answer in time
        upstream_late: Counter, "requests";
        /// further attempts after a failed one
        retries: Counter, "attempts";
        /// connections to upstreams opened
        upstream_opened: Counter, "connections";
        /// requests sent on a connection that had carried one before
        upstream_reused: Counter, "requests";
        /// connections to upstreams open now
        upstream_open: Gauge, "connections";
        /// connections that were upgraded to another protocol
        upgrades: Counter, "connections";
        /// lines of the access log that were dropped because its reader was too slow
        log_lines_dropped: Counter, "lines";
    }
}
