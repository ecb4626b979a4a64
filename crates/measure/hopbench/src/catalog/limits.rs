//! Limits of what a scenario may ask for.

/// Maximum number of connections of a load: half as many as there are ports for a client, which has
/// 28,000 to one address by default.
pub(crate) const CONCURRENCY_MAX: u32 = 16_384;

/// Maximum rate, in requests per second: that of the load generator.
pub(crate) const RATE_RPS_MAX: u32 = 1_000_000;

/// Maximum share of a knee, in per cent: beyond ten times the knee, only the queue is to be seen.
pub(crate) const KNEE_PERCENT_MAX: u32 = 1_000;

/// Maximum duration of a load, in milliseconds: an hour.
pub(crate) const DURATION_MS_MAX: u64 = 3_600_000;

/// Maximum number of requests of a load that counts them.
pub(crate) const REQUESTS_MAX: u64 = 1_000_000_000;

/// Returns the lowest rate at which a load has at least one request.
pub(crate) fn rate_min(duration_ms: u64) -> u32 {
    let rate = 1_000_u64.div_ceil(duration_ms.max(1));
    u32::try_from(rate).unwrap_or(RATE_RPS_MAX)
}

/// Maximum length of the name of a definition or of a process, in bytes: logs are named after both.
pub(crate) const NAME_BYTES_MAX: usize = 64;
