//! State that all threads share.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use http_proxy::{ProxyCounters, Upstreams};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::Cache,
    flight::Flights,
    keep::Keeper,
    recordings::Recordings,
    respond::ReplayTiming,
    store::{Reader, Writer},
};

service::counters! {
    /// Counters of the record/replay proxy.
    pub struct Counters, "" {
        /// requests answered from the store
        cache_hits_total: Counter, "requests";
        /// requests that the store could not answer
        cache_misses_total: Counter, "requests";
        /// requests sent to the upstream
        upstream_requests_total: Counter, "requests";
        /// answers stored, recorded or cached
        answers_stored: Counter, "answers";
        /// answers that were cut off or whose client went away, and that are not stored
        answers_unstored_cut: Counter, "answers";
        /// answers that could not be stored: a full disk, or secrets that can't be found
        answers_unstored_failed: Counter, "answers";
        /// connections that changed to another protocol, which are not recorded
        upgrades_unrecorded: Counter, "connections";
        /// requests that waited for the same request of another client
        requests_coalesced: Counter, "requests";
        /// stored answers that the upstream confirmed
        validations_confirmed: Counter, "answers";
        /// stale answers served while they were fetched again, or because that failed
        stale_served: Counter, "answers";
        /// cached answers dropped to make room
        evictions: Counter, "answers";
        /// answers deleted because of a purge or a changing request
        purged: Counter, "answers";
        /// stored answers that could not be read
        answers_unreadable: Counter, "answers";
    }
}

/// The use of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Forwarded, and the answer stored.
    Record,
    /// Answered from the store only.
    Replay,
    /// Answered from the store if it may be, or else forwarded and the answer stored.
    PassthroughCache,
}

/// How long an answer may be used in [`Mode::PassthroughCache`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Freshness {
    /// For ever.
    Forever,
    /// As long as the rules of HTTP caching say (RFC 9111).
    #[default]
    Rfc9111,
}

/// The fate of a request that [`Mode::Replay`] has no answer for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Miss {
    /// 502, with the reason.
    #[default]
    Error,
    /// It is forwarded, and the answer isn't stored.
    Forward,
    /// It is forwarded, and the answer is stored.
    Record,
}

/// State that all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mode: AtomicMode,
    pub(crate) freshness: Freshness,
    pub(crate) miss: Miss,
    pub(crate) timing: ReplayTiming,
    /// `None` if there is nowhere to forward to.
    pub(crate) upstreams: Option<Arc<Upstreams>>,
    pub(crate) keeper: Keeper,
    pub(crate) recordings: Recordings,
    pub(crate) cache: Cache,
    pub(crate) flights: Flights,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) store: PathBuf,
    pub(crate) session_name: String,
    /// Longest body that is stored.
    pub(crate) body_bytes_max: u64,
    pub(crate) counters: Arc<Counters>,
    pub(crate) http_counters: Arc<ProxyCounters>,
    /// Cancelled when the process is told to stop.
    pub(crate) stop: CancellationToken,
}

/// A mode that can be changed at any time.
#[derive(Debug)]
pub(crate) struct AtomicMode(AtomicU8);

impl AtomicMode {
    pub(crate) fn new(mode: Mode) -> Self {
        Self(AtomicU8::new(mode.number()))
    }

    pub(crate) fn get(&self) -> Mode {
        match self.0.load(Relaxed) {
            0 => Mode::Record,
            1 => Mode::Replay,
            _ => Mode::PassthroughCache,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.0.store(mode.number(), Relaxed);
    }
}

impl Mode {
    fn number(self) -> u8 {
        match self {
            Self::Record => 0,
            Self::Replay => 1,
            Self::PassthroughCache => 2,
        }
    }

    /// Returns its name, as it is written in arguments.
    pub(crate) fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
