//! stream and shm: many tunnels as frames over one rapace transport.
//!
//! | file | what |
//! |---|---|
//! | `mux` | the rules, without I/O: numbers, credit, half-close, reset |
//! | `session` | one session with a peer: the writer, the receiver, the table of tunnels |
//! | `tunnel` | one connection: socket to frames and frames to socket |
//! | `inbound` | bytes on their way to the local connection |
//! | `socket` | the local connection's ends |
//! | `stream` | a tunnel as a byte stream, for an application in this process |
//! | `outbox` | frames that wait for the writer |
//! | `rapace` | rapace's transports, and what must be done to use them well |
//! | `cork` | batching under rapace's stream transport |
//! | `arena` | buffers into which sockets are read |

pub(crate) mod arena;
mod cork;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod inbound;
mod mux;
mod outbox;
mod rapace;
mod session;
mod socket;
mod stream;
mod tunnel;

use std::{fmt, os::fd::OwnedFd, sync::Arc};

use ::rapace::transport::shm::ShmSession;
use rustix::fs::MemfdFlags;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::watch,
};

pub use self::rapace::Slots;
use self::{cork::Socket, session::Receiver};
pub(crate) use self::{
    mux::Role,
    rapace::{LinkError, SLOTS_MIN, SlotCounters},
    session::{Session, SessionTerms},
    socket::{LocalSocket, Registered, Sink, Source},
    stream::TunnelStream,
    tunnel::{Local, Tunnel},
};
use crate::{counters::Counters, local};

/// Longest payload of a stream frame that is accepted, and thus the largest `--chunk-bytes`.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A connection to a peer with which the terms are agreed, ready for a session.
#[derive(Debug)]
pub(crate) enum FramedPeer {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The socket stays open: when it ends, the peer has gone.
    Shm {
        socket: UnixStream,
        segment: SlotSegment,
    },
}

/// Shared memory, laid out by the host and mapped by both.
pub(crate) struct SlotSegment {
    mapped: Arc<ShmSession>,
    slots: Slots,
}

impl SlotSegment {
    /// Lays out memory without a name on any file system: it is gone with the last process that
    /// maps it, however that ends. Also returns the descriptor for the peer.
    pub(crate) fn create(slots: Slots) -> anyhow::Result<(Self, OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("tunnel-slots", flags)?;
        let mapped = rapace::create_segment(&memory, slots)?;
        shm_ring::seal_size(&memory)?;
        Ok((Self { mapped, slots }, memory))
    }

    /// Maps the memory that the peer has laid out.
    ///
    /// # Errors
    /// If the peer could take pages away, or rapace finds no segment there.
    pub(crate) fn open(memory: &OwnedFd, slots: Slots) -> anyhow::Result<Self> {
        shm_ring::check_size_sealed(memory)?;
        Ok(Self {
            mapped: rapace::open_segment(memory)?,
            slots,
        })
    }
}

impl fmt::Debug for SlotSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotSegment")
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl FramedPeer {
    /// Runs `session` over this connection until the peer leaves, the transport fails, or `stopped`
    /// says so.
    pub(crate) async fn run(
        self,
        session: &Arc<Session>,
        role: Role,
        counters: &Arc<Counters>,
        slot_counters: &SlotCounters,
        stopped: watch::Receiver<bool>,
    ) -> Result<(), LinkError> {
        let stream = |socket| rapace::stream_link(socket, CHUNK_BYTES_MAX, counters);
        let never = std::future::pending();
        match self {
            Self::Tcp(socket) => {
                let (sender, receiver) = stream(Socket::Tcp(socket));
                session
                    .run(sender, Receiver::Stream(receiver), stopped, never)
                    .await
            }
            Self::Unix(socket) => {
                let (sender, receiver) = stream(Socket::Unix(socket));
                session
                    .run(sender, Receiver::Stream(receiver), stopped, never)
                    .await
            }
            Self::Shm {
                mut socket,
                segment: SlotSegment { mapped, slots },
            } => {
                let (sender, receiver) =
                    rapace::shm_link(mapped, role, slots, counters, slot_counters);
                let peer_left = async move { local::until_closed(&mut socket).await };
                session
                    .run(sender, Receiver::Shm(receiver), stopped, peer_left)
                    .await
            }
        }
    }
}
