//! Upstreams: where requests may go, and which of those places work.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

/// One server that answers requests.
#[derive(Debug)]
pub struct Target {
    /// Unique in the process, also across reloads.
    pub(crate) id: u64,
    place: Place,
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after [`START`] until which others are preferred.
    down_until_ms: AtomicU64,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A host's name or address, and a port. It is resolved anew for each connection.
    Name(String, u16),
    /// An address that was checked and must not be resolved again.
    Address(SocketAddr),
}

/// The targets of a route, which can all answer the same requests, and how they are asked.
#[derive(Debug)]
pub struct Upstreams {
    targets: Vec<Arc<Target>>,
    next: AtomicUsize,
    /// How they are asked.
    pub limits: UpstreamLimits,
}

/// Limits for asking an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamLimits {
    /// Time limit for connecting.
    pub connect: Duration,
    /// Time limit for the head of the answer, from the last byte of the request on.
    pub head: Duration,
    /// Time limit for an upload or an answer that stands still.
    pub idle: Duration,
    /// Time limit for everything together.
    pub total: Duration,
    /// Most attempts after the first.
    pub retries_max: u32,
}

/// When the process began to look at the health of targets.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Failures in a row after which a target counts as down.
const FAILURES_MAX: u32 = 3;

/// How long others are preferred to a target that is down. Then one request tries it.
const DOWN: Duration = Duration::from_secs(5);

impl Target {
    /// Describes a target.
    pub fn new(place: Place) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            place,
            failures: AtomicU32::new(0),
            down_until_ms: AtomicU64::new(0),
        }
    }

    /// Connects, with `TCP_NODELAY`.
    pub(crate) async fn connect(&self, at_most: Duration) -> io::Result<TcpStream> {
        let connecting = async {
            match &self.place {
                Place::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
                Place::Address(address) => TcpStream::connect(address).await,
            }
        };
        let stream = timeout(at_most, connecting).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Notes that the target works.
    pub(crate) fn succeeded(&self) {
        // The line of memory is shared by all workers, and failures are rare.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.down_until_ms.store(0, Relaxed);
        }
    }

    /// Notes that the target failed.
    pub(crate) fn failed(&self) {
        if self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES_MAX {
            let until = START.elapsed() + DOWN;
            let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
            if self.down_until_ms.swap(until_ms, Relaxed) == 0 {
                tracing::warn!("'{self}' is down: {FAILURES_MAX} failures in a row");
            }
        }
    }

    fn is_down(&self) -> bool {
        let until_ms = self.down_until_ms.load(Relaxed);
        until_ms != 0 && START.elapsed().as_millis() < u128::from(until_ms)
    }
}

impl Place {
    /// Reads `HOST:PORT` or `http://HOST:PORT`; without a port, it is 80.
    ///
    /// # Errors
    /// A line that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected HOST:PORT or http://HOST:PORT".to_owned();
        if text.starts_with("https://") {
            let why = "https is not spoken: put a TLS client such as stunnel in between";
            return Err(why.to_owned());
        }
        let place = text.strip_prefix("http://").unwrap_or(text);
        let place = place.strip_suffix('/').unwrap_or(place);
        if let Ok(address) = place.parse() {
            return Ok(Self::Address(address));
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| expected())?),
            None => (place, 80),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(expected());
        }
        Ok(Self::Name(host.to_owned(), port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Upstreams {
    /// Describes a route's targets, of which there must be one at least.
    pub fn new(places: impl IntoIterator<Item = Place>, limits: UpstreamLimits) -> Self {
        let targets: Vec<_> = places.into_iter().map(Target::new).map(Arc::new).collect();
        assert!(!targets.is_empty(), "a route without targets");
        Self {
            targets,
            next: AtomicUsize::new(0),
            limits,
        }
    }

    /// Returns how many targets there are.
    pub(crate) fn count(&self) -> usize {
        self.targets.len()
    }

    /// Picks the target for the next attempt: one that works and has not been tried, or else one
    /// that has not been tried, or else any. They take turns.
    pub(crate) fn pick(&self, tried: &[u64]) -> &Arc<Target> {
        if let [only] = self.targets.as_slice() {
            return only;
        }
        let first = self.next.fetch_add(1, Relaxed);
        let turn = |offset| &self.targets[first.wrapping_add(offset) % self.targets.len()];
        let in_turn = || (0..self.targets.len()).map(turn);
        let untried = || in_turn().filter(|target| !tried.contains(&target.id));
        let healthy = untried().find(|target| !target.is_down());
        healthy
            .or_else(|| untried().next())
            .unwrap_or_else(|| turn(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(count: u16) -> Upstreams {
        let limit = Duration::from_secs(60);
        let limits = UpstreamLimits {
            connect: limit,
            head: limit,
            idle: limit,
            total: limit,
            retries_max: 1,
        };
        let places = (0..count).map(|port| Place::Name("a".to_owned(), port));
        Upstreams::new(places, limits)
    }

    #[test]
    fn targets_take_turns() {
        let upstreams = upstreams(3);
        let picked: Vec<_> = (0..6).map(|_| upstreams.pick(&[]).to_string()).collect();
        assert_eq!(picked, ["a:0", "a:1", "a:2", "a:0", "a:1", "a:2"]);
    }

    #[test]
    fn a_target_that_fails_is_avoided_while_others_are_left() {
        let upstreams = upstreams(2);
        let bad = Arc::clone(upstreams.pick(&[]));
        for _ in 0..FAILURES_MAX {
            assert!(!bad.is_down());
            bad.failed();
        }
        let good = upstreams.pick(&[]).id;
        assert_ne!(good, bad.id);
        assert!((0..4).all(|_| upstreams.pick(&[]).id == good));
        // It is better than one that failed just now.
        assert_eq!(upstreams.pick(&[good]).id, bad.id);
        bad.succeeded();
        assert!((0..2).any(|_| upstreams.pick(&[]).id == bad.id));
    }

    #[test]
    fn places_are_shown_as_they_are_written() {
        let address = "[::1]:80".parse().expect("an address");
        for (place, text) in [
            (Place::Name("::1".to_owned(), 80), "[::1]:80"),
            (Place::Address(address), "[::1]:80"),
        ] {
            assert_eq!(place.to_string(), text);
        }
    }
}
