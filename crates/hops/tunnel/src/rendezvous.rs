//! How host and plugin find each other and agree.
//!
//! ```text
//! plugin                                  host
//!   connect to --addr  ───────────────►   accept; same user?
//!   {"protocol":N, "transport":…}\n  ──►  same protocol and transport? nobody attached yet?
//!   ◄──────────────  {"welcome":{…}}\n    terms; on shm and ring the geometry, then the
//!                                         memory, and on ring the doorbells, by SCM_RIGHTS
//!                    {"refused":"why"}\n
//!   arena by SCM_RIGHTS  ───────────►    on ring
//! ```
//!
//! On handoff, clients follow the welcome ([`crate::handoff`]).
//!
//! The lines are read byte by byte, because what follows them on a stream is for rapace.

pub(crate) mod descriptors;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod newcomers;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use service::{limit::CONNECTIONS_MAX, process};
use shm_ring::Arena;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

use self::descriptors::{receive_descriptors, receive_exactly, send_descriptors};
pub(crate) use self::newcomers::{Newcomer, Newcomers, PeerListener};
use crate::{
    counters::Counters,
    framed::{FramedPeer, Role, SessionTerms, SlotSegment, Slots},
    handoff,
    ring::{self, Link, Offer},
    transport::{ARENA_MIB_MAX, PeerAddress, Relay, TransportKind, TransportOptions, check_slots},
};

/// Raised whenever frames or the hand-shake change in a way that an older build would misread.
const PROTOCOL: u32 = 5;

/// Time-out of a hand-shake, which is a few hundred bytes between two processes of one machine.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: usize = 4096;

/// Pause between two attempts to attach to a host that is not there yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Pause between two attempts to attach to a host that is there.
const FAILED_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Deserialize, Serialize)]
struct Hello {
    protocol: u32,
    build: String,
    transport: TransportKind,
    window_bytes: u32,
    /// Layout that the plugin insists on, if it does.
    shm_slots: Option<u32>,
    shm_slot_size: Option<u32>,
    /// On ring, the size of the plugin's arena.
    arena_bytes: Option<usize>,
    /// On handoff, the process that relays.
    #[serde(default)]
    relay: Relay,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Refused(String),
    Welcome(Welcome),
}

#[derive(Debug, Deserialize, Serialize)]
struct Welcome {
    window_bytes: u32,
    tunnels_max: usize,
    slots: Option<Slots>,
    ring: Option<ring::Terms>,
    /// Only on handoff. Builds that don't know it say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handoff: Option<handoff::Terms>,
}

/// A peer that has agreed on the terms.
#[derive(Debug)]
pub(crate) enum Peer {
    Framed(FramedPeer, SessionTerms),
    Ring {
        /// Stays open: when it ends, the peer has gone.
        socket: UnixStream,
        links: Vec<Arc<Link>>,
    },
    Handoff {
        /// Clients are passed over it. When it ends, the peer has gone.
        socket: UnixStream,
        terms: handoff::Terms,
        tunnels_max: usize,
    },
}

/// The part of a hello that every version has. It names a peer of another version.
#[derive(Debug, Deserialize)]
struct AnyHello {
    protocol: u32,
    build: String,
}

/// Reason why attaching failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The host refused, or is of another kind. Trying again won't help.
    #[error("the host at '{address}' refused: {reason}")]
    Refused { address: String, reason: String },
    #[error(
        "no host answered at '{address}' within {waited_ms} ms ({cause}); start http-tunnel-host \
         with the same --transport and --addr"
    )]
    Absent {
        address: String,
        waited_ms: u128,
        cause: String,
    },
    #[error("could not attach to the host at '{address}' within {waited_ms} ms: {cause}")]
    TimedOut {
        address: String,
        waited_ms: u128,
        cause: String,
    },
}

/// A connection over `--addr`.
#[derive(Debug)]
enum PeerSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Newcomer {
    /// Tells the plugin why it can't attach.
    pub(crate) async fn refuse(mut self, reason: &str) -> anyhow::Result<()> {
        let answer = Answer::Refused(reason.to_owned());
        timeout(HANDSHAKE_TIMEOUT, self.socket.say(&answer)).await?
    }

    /// Agrees with the plugin on the terms.
    pub(crate) async fn welcome(
        self,
        options: &TransportOptions,
        bounds: Bounds,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Peer> {
        timeout(HANDSHAKE_TIMEOUT, self.agree(options, bounds, counters))
            .await
            .context("a peer did not complete the handshake in time")?
    }

    async fn agree(
        mut self,
        options: &TransportOptions,
        bounds: Bounds,
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Peer> {
        let tunnels_max = bounds.tunnels_max;
        let slots = (options.transport == TransportKind::Shm).then(|| options.slots());
        let hello = match check_hello(&self.hello, options, slots) {
            Ok(hello) => hello,
            Err(reason) => {
                self.socket.say(&Answer::Refused(reason.clone())).await?;
                bail!("it was refused: {reason}");
            }
        };
        let ring = (options.transport == TransportKind::Ring)
            .then(|| options.ring_terms(bounds.shards, tunnels_max));
        let handoff = (options.transport == TransportKind::Handoff)
            .then(|| handoff::Terms::new(bounds.idle_timeout));
        let window_bytes = options.window_bytes;
        let segment = slots.map(SlotSegment::create).transpose()?;
        let offers = ring.map(offers).transpose()?;
        let welcome = Answer::Welcome(Welcome {
            window_bytes,
            tunnels_max,
            slots,
            ring,
            handoff,
        });
        self.socket.say(&welcome).await?;
        let terms = SessionTerms {
            role: Role::Opener,
            frame_bytes: options.frame_bytes(slots),
            window_bytes,
            peer_window_bytes: hello.window_bytes,
            tunnels_max,
        };
        let peer = match (self.socket, segment, offers) {
            (PeerSocket::Tcp(socket), ..) => FramedPeer::Tcp(socket),
            (PeerSocket::Unix(socket), None, None) => match handoff {
                Some(terms) => return Ok(Peer::handoff(socket, terms, tunnels_max)),
                None => FramedPeer::Unix(socket),
            },
            (PeerSocket::Unix(socket), Some((segment, memory)), _) => {
                send_descriptors(&socket, &[memory.as_fd()]).await?;
                FramedPeer::Shm { socket, segment }
            }
            (PeerSocket::Unix(socket), None, Some((offers, descriptors))) => {
                let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
                send_descriptors(&socket, &descriptors).await?;
                let [arena] = receive_exactly(&socket).await?;
                let arena = (&arena, hello.arena_bytes.unwrap_or_default());
                let links = offers.into_iter().map(|offer| {
                    let link = offer.accept(arena, counters)?;
                    Ok(Arc::new(link))
                });
                return Ok(Peer::Ring {
                    socket,
                    links: links.collect::<io::Result<_>>()?,
                });
            }
        };
        Ok(Peer::Framed(peer, terms))
    }
}

impl Peer {
    fn handoff(socket: UnixStream, terms: handoff::Terms, tunnels_max: usize) -> Self {
        Self::Handoff {
            socket,
            terms,
            tunnels_max,
        }
    }
}

impl PeerSocket {
    async fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        match self {
            Self::Tcp(socket) => say(socket, message).await,
            Self::Unix(socket) => say(socket, message).await,
        }
    }

    async fn hear(&mut self) -> anyhow::Result<String> {
        match self {
            Self::Tcp(socket) => hear(socket).await,
            Self::Unix(socket) => hear(socket).await,
        }
    }
}

/// Connects to the host as soon as it is there, and agrees on the terms.
pub(crate) async fn attach(
    options: &TransportOptions,
    ring: Option<&PluginRing>,
    counters: &Arc<Counters>,
) -> Result<Peer, AttachError> {
    let started = Instant::now();
    let address = || options.addr.to_string();
    let mut failed = None;
    loop {
        let attempt = timeout(HANDSHAKE_TIMEOUT, attempt(options, ring, counters)).await;
        let attempt = attempt.unwrap_or_else(|_| Err(Trouble::Failed(anyhow!(SILENT))));
        let trouble = match attempt {
            Ok(Ok(attached)) => return Ok(attached),
            Ok(Err(reason)) => {
                let address = address();
                return Err(AttachError::Refused { address, reason });
            }
            Err(trouble) => trouble,
        };
        let (cause, pause) = match trouble {
            Trouble::Absent(error) => (error.to_string(), RETRY_INTERVAL),
            Trouble::Failed(error) => {
                let cause = process::with_remedy(&error);
                tracing::warn!("could not attach to the host at '{}': {cause}", address());
                failed = Some(cause.clone());
                (cause, FAILED_PAUSE)
            }
        };
        if started.elapsed() >= options.peer_timeout() {
            let (address, waited_ms) = (address(), started.elapsed().as_millis());
            return Err(match failed {
                // The failure of a host that was there says more than that it has gone since.
                Some(cause) => AttachError::TimedOut {
                    address,
                    waited_ms,
                    cause,
                },
                None => AttachError::Absent {
                    address,
                    waited_ms,
                    cause,
                },
            });
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reason why one attempt failed.
enum Trouble {
    /// Nobody listens there yet.
    Absent(io::Error),
    Failed(anyhow::Error),
}

const SILENT: &str = "it does not answer";

/// Makes one attempt to attach. The inner error is the host's refusal.
async fn attempt(
    options: &TransportOptions,
    ring: Option<&PluginRing>,
    counters: &Arc<Counters>,
) -> Result<Result<Peer, String>, Trouble> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let host = connect(&options.addr).await.map_err(|error| {
        match matches!(error.kind(), ConnectionRefused | NotFound) {
            true => Trouble::Absent(error),
            false => Trouble::Failed(error.into()),
        }
    })?;
    let agreed = agree_with_host(host, options, ring, counters).await;
    agreed.map_err(Trouble::Failed)
}

async fn connect(address: &PeerAddress) -> io::Result<PeerSocket> {
    match address {
        PeerAddress::Path(path) => {
            let socket = UnixStream::connect(path).await?;
            let (theirs, ours) = (socket.peer_cred()?.uid(), rustix::process::geteuid());
            if theirs != ours.as_raw() {
                return Err(io::Error::other(format!(
                    "refused a host of user {theirs}: expected user {}",
                    ours.as_raw()
                )));
            }
            Ok(PeerSocket::Unix(socket))
        }
        PeerAddress::Tcp(address) => {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(PeerSocket::Tcp(socket))
        }
    }
}

/// Agrees with a connected host on the terms. The inner error is the host's refusal.
async fn agree_with_host(
    mut host: PeerSocket,
    options: &TransportOptions,
    ring: Option<&PluginRing>,
    counters: &Arc<Counters>,
) -> anyhow::Result<Result<Peer, String>> {
    let hello = Hello {
        protocol: PROTOCOL,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        transport: options.transport,
        window_bytes: options.window_bytes,
        shm_slots: options.shm_slots,
        shm_slot_size: options.shm_slot_size,
        arena_bytes: ring.map(|_| options.arena_bytes()),
        relay: options.relay,
    };
    host.say(&hello).await?;
    let line = host.hear().await?;
    let Ok(answer) = serde_json::from_str(&line) else {
        return Ok(Err(format!(
            "it answered '{line}', which is not the tunnel's protocol"
        )));
    };
    let welcome: Welcome = match answer {
        Answer::Refused(reason) => return Ok(Err(reason)),
        Answer::Welcome(welcome) => welcome,
    };
    if let Err(reason) = check_welcome(options.transport, &welcome) {
        return Ok(Err(reason));
    }
    let Welcome {
        tunnels_max, slots, ..
    } = welcome;
    let terms = SessionTerms {
        role: Role::Acceptor,
        frame_bytes: options.frame_bytes(slots),
        window_bytes: options.window_bytes,
        peer_window_bytes: welcome.window_bytes,
        tunnels_max,
    };
    let peer = match (host, slots, welcome.ring.zip(ring)) {
        (PeerSocket::Tcp(socket), ..) => FramedPeer::Tcp(socket),
        (PeerSocket::Unix(socket), Some(slots), _) => {
            let [memory] = receive_exactly(&socket).await?;
            let segment = SlotSegment::open(&memory, slots)?;
            FramedPeer::Shm { socket, segment }
        }
        (PeerSocket::Unix(socket), None, Some((terms, ring))) => {
            let links = receive_links(&socket, terms, ring, counters).await?;
            return Ok(Ok(Peer::Ring { socket, links }));
        }
        (PeerSocket::Unix(socket), None, None) => match welcome.handoff {
            Some(terms) => return Ok(Ok(Peer::handoff(socket, terms, tunnels_max))),
            None => FramedPeer::Unix(socket),
        },
    };
    Ok(Ok(Peer::Framed(peer, terms)))
}

/// Checks that a welcome is for the transport that was asked for, and within bounds.
fn check_welcome(asked: TransportKind, welcome: &Welcome) -> Result<(), String> {
    let offered = match (welcome.slots, welcome.ring, welcome.handoff) {
        (None, None, None) => Some(TransportKind::Stream),
        (Some(_), None, None) => Some(TransportKind::Shm),
        (None, Some(_), None) => Some(TransportKind::Ring),
        (None, None, Some(_)) => Some(TransportKind::Handoff),
        _ => None,
    };
    if offered != Some(asked) {
        return Err(format!("it offers a transport other than '{asked}'"));
    }
    let tunnels_max = welcome.tunnels_max;
    if !(1..=CONNECTIONS_MAX).contains(&tunnels_max) {
        return Err(format!(
            "it offers {tunnels_max} connections, expected 1 to {CONNECTIONS_MAX}"
        ));
    }
    welcome.slots.map_or(Ok(()), check_slots)?;
    welcome.handoff.map_or(Ok(()), handoff::Terms::check)
}

/// Receives the host's segments and bells, and sends it this side's arena.
async fn receive_links(
    socket: &UnixStream,
    terms: ring::Terms,
    ring: &PluginRing,
    counters: &Arc<Counters>,
) -> anyhow::Result<Vec<Arc<Link>>> {
    terms.check()?;
    let mut received = receive_descriptors(socket, 3 * terms.shards)
        .await?
        .into_iter();
    let mut links = Vec::new();
    while let (Some(memory), Some(host), Some(plugin)) =
        (received.next(), received.next(), received.next())
    {
        let offer = [memory, host, plugin];
        let link = Link::of_offer(terms, offer, ring.arena.clone(), counters)?;
        links.push(Arc::new(link));
    }
    send_descriptors(socket, &[ring.file.as_fd()]).await?;
    Ok(links)
}

/// Limits that a host sets for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most connections at a time.
    pub(crate) tunnels_max: usize,
    /// Number of links of a session on ring.
    pub(crate) shards: usize,
    /// Time without traffic after which a client is reset. On handoff, the plugin does so.
    pub(crate) idle_timeout: Option<Duration>,
}

/// Lays out every link's segment. Also returns the descriptors for the plugin.
fn offers(terms: ring::Terms) -> anyhow::Result<(Vec<Offer>, Vec<OwnedFd>)> {
    let (mut offers, mut descriptors) = (Vec::new(), Vec::new());
    for _ in 0..terms.shards {
        let (offer, theirs) = Offer::new(terms)?;
        offers.push(offer);
        descriptors.extend(theirs);
    }
    Ok((offers, descriptors))
}

/// The parts of ring that a plugin provides.
#[derive(Debug)]
pub(crate) struct PluginRing {
    pub(crate) arena: Arena,
    /// The arena's memory file, which each host is given.
    pub(crate) file: OwnedFd,
}

fn check_hello(
    line: &str,
    options: &TransportOptions,
    slots: Option<Slots>,
) -> Result<Hello, String> {
    let any: AnyHello = serde_json::from_str(line)
        .map_err(|_| format!("'{line}' is not the tunnel's protocol: is this a plugin?"))?;
    if any.protocol != PROTOCOL {
        return Err(format!(
            "the plugin speaks protocol {} (build {}), the host protocol {PROTOCOL} (build {}); \
             use binaries from the same build",
            any.protocol,
            any.build,
            env!("CARGO_PKG_VERSION"),
        ));
    }
    let hello: Hello = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if hello.transport != options.transport {
        return Err(format!(
            "the plugin has --transport={}, the host --transport={}",
            hello.transport, options.transport
        ));
    }
    if hello.relay != options.relay {
        return Err(format!(
            "the plugin has --relay={}, the host --relay={}",
            hello.relay, options.relay
        ));
    }
    if let Some(slots) = slots {
        let differs = |theirs: Option<u32>, ours| theirs.is_some_and(|theirs| theirs != ours);
        if differs(hello.shm_slots, slots.count) || differs(hello.shm_slot_size, slots.size_bytes) {
            return Err(format!(
                "the plugin's --shm-slots or --shm-slot-size differ from the host's {} × {}; \
                 leave them out on the plugin",
                slots.count, slots.size_bytes
            ));
        }
    }
    let arena_bytes_max = (ARENA_MIB_MAX as usize) << 20;
    if options.transport == TransportKind::Ring
        && !hello
            .arena_bytes
            .is_some_and(|bytes| (1..=arena_bytes_max).contains(&bytes))
    {
        return Err(format!(
            "the plugin's arena has {:?} bytes, expected 1 to {arena_bytes_max}",
            hello.arena_bytes
        ));
    }
    Ok(hello)
}

async fn say(
    socket: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(socket.write_all(&line).await?)
}

async fn hear(socket: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut line = Vec::new();
    loop {
        match socket
            .read_u8()
            .await
            .context("the peer closed the connection")?
        {
            b'\n' => return String::from_utf8(line).context("the peer's line is not UTF-8"),
            byte => line.push(byte),
        }
        if line.len() > LINE_BYTES_MAX {
            bail!("the peer's line is longer than {LINE_BYTES_MAX} bytes");
        }
    }
}
