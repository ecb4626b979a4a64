//! rapace's two transports as links: something that sends frames and something that receives them.
//!
//! Everything specific to rapace 0.5.0 is here, with the reason for each precaution. Its API is
//! used as published: `send_frame`, `recv_frame`, and for shared memory the session's own ring and
//! futexes to wait on. One task sends and one receiver receives: its shared-memory enqueue is not
//! safe for several producers.
//!
//! Waiting is not left to rapace's shared-memory transport. Its waits read the futex word *after*
//! they looked at the ring, so that a signal in between is lost and costs 100 ms, and each parks a
//! thread of the blocking pool, which is three hand-overs per frame. Here a receiver thread reads
//! the word first, looks, and waits on the futex itself; `recv_frame` is only called when a
//! descriptor is there. And a sender keeps so few descriptors in the ring that no slot allocation
//! ever finds the slab empty.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use rapace::{
    Frame, FrameFlags, MsgDescHot, Transport, TransportError,
    transport::shm::{
        ShmMetrics, ShmSession, ShmSessionConfig, ShmTransport,
        futex::{futex_signal, futex_wait},
    },
};
use rapace_core::Payload;
use tokio::runtime::Handle;

use super::{
    cork::{Corked, GATHER_BYTES, Socket},
    mux::{Kind, Role, Violation},
};
use crate::{copy, counters::Counters};

/// Payloads up to this length travel inside rapace's descriptor.
pub(super) const INLINE_BYTES: usize = 16;

/// How a shared-memory session is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Slots {
    /// Slots in the slab that both directions share.
    pub count: u32,
    /// Size of each in bytes.
    pub size_bytes: u32,
}

/// A frame to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) tunnel: u32,
    /// Credit in bytes, for [`Kind::Credit`].
    pub(super) value: u32,
    /// Payload, for [`Kind::Data`].
    pub(super) payload: Bytes,
}

/// A frame that was received, its descriptor checked.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) kind: Kind,
    pub(super) tunnel: u32,
    pub(super) value: u32,
    frame: Frame,
}

/// Why a link ended, other than by its peer's leaving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the peer broke the protocol: {0}")]
    Violation(#[from] Violation),
    #[error("rapace: {0}")]
    Transport(TransportError),
    #[error("the socket to the peer failed: {0}")]
    Io(#[from] io::Error),
}

/// Sends frames, in order, from one task.
#[derive(Debug)]
pub(super) enum Sender {
    Shm(ShmSender),
    Stream(StreamSender),
}

#[derive(Debug)]
pub(super) struct StreamSender {
    transport: Transport,
    corked: Corked,
    sequence: u64,
    counters: Arc<Counters>,
    /// Frames since the last flush.
    gathered: usize,
}

#[derive(Debug)]
pub(super) struct ShmSender {
    transport: Transport,
    link: Arc<ShmLink>,
    sequence: u64,
    /// Descriptors that may be in the ring at once.
    ring_share: u32,
    /// Frames that can be sent before the ring has to be looked at again.
    budget: u32,
}

/// Receives frames over a stream, in a task.
#[derive(Debug)]
pub(super) struct StreamReceiver {
    transport: Transport,
    sequence: u64,
    counters: Arc<Counters>,
}

/// Receives frames from shared memory, on a thread of its own.
#[derive(Debug)]
pub(super) struct ShmReceiver {
    transport: Transport,
    link: Arc<ShmLink>,
    sequence: u64,
    /// Frames that may be held at once; each may hold a slot.
    batch_frames: usize,
}

/// What both directions of a shared-memory session use.
#[derive(Debug)]
pub(super) struct ShmLink {
    session: SessionRef,
    closed: AtomicBool,
    counters: Arc<Counters>,
}

struct SessionRef(Arc<ShmSession>);

/// Makes a stream link of a connected socket. No payload over `payload_bytes_max` is received.
pub(super) fn stream_link(
    socket: Socket,
    payload_bytes_max: usize,
    counters: &Arc<Counters>,
) -> (Sender, StreamReceiver) {
    let (stream, corked) = Corked::new(socket, payload_bytes_max, counters.clone());
    let transport = Transport::stream(stream);
    let receiver = StreamReceiver {
        transport: transport.clone(),
        sequence: 0,
        counters: counters.clone(),
    };
    let counters = counters.clone();
    let sender = StreamSender { transport, corked, sequence: 0, counters, gathered: 0 };
    (Sender::Stream(sender), receiver)
}

/// Lays out a segment in `memory`, which must be empty.
pub(super) fn create_segment(memory: &OwnedFd, slots: Slots) -> anyhow::Result<Arc<ShmSession>> {
    let config = ShmSessionConfig {
        ring_capacity: slots.count.next_power_of_two().max(RING_CAPACITY),
        slot_size: slots.size_bytes,
        slot_count: slots.count,
    };
    ShmSession::create_file(descriptor_path(memory), config)
        .map_err(|error| anyhow::anyhow!("could not lay out the shared memory: {error}"))
}

/// Maps the segment that the peer has laid out.
pub(super) fn open_segment(memory: &OwnedFd) -> anyhow::Result<Arc<ShmSession>> {
    ShmSession::open_file_auto(descriptor_path(memory))
        .map_err(|error| anyhow::anyhow!("could not map the shared memory: {error}"))
}

/// Makes a shared-memory link of a mapped segment.
pub(super) fn shm_link(
    session: Arc<ShmSession>,
    role: Role,
    slots: Slots,
    counters: &Arc<Counters>,
) -> (Sender, ShmReceiver) {
    let metrics = Arc::new(ShmMetrics::new());
    counters.watch_shm(metrics.clone());
    let transport = Transport::Shm(ShmTransport::new_with_metrics(session.clone(), metrics));
    let shares = Shares::of(slots.count);
    let link = Arc::new(ShmLink {
        session: SessionRef(session),
        closed: AtomicBool::new(false),
        counters: counters.clone(),
    });
    let receiver = ShmReceiver {
        transport: transport.clone(),
        link: link.clone(),
        sequence: 0,
        batch_frames: shares.held as usize,
    };
    let ring_share = match role {
        Role::Opener => shares.host,
        Role::Acceptor => shares.plugin,
    };
    let sender = ShmSender { transport, link, sequence: 0, ring_share, budget: 0 };
    (Sender::Shm(sender), receiver)
}

/// rapace's default; a larger slab gets a larger ring.
const RING_CAPACITY: u32 = 256;

/// Fewest slots that can be shared: each direction needs one in the ring and one being delivered.
pub(crate) const SLOTS_MIN: u32 = 8;

/// How the one slab is divided, so that no allocation ever finds it empty.
///
/// A slot is taken when a frame is sent and given back when its receiver has delivered it. The
/// receiver delivers at most `held` frames at once and never waits while it holds any, so that at
/// most ring share + `held` slots of a direction are taken, and the four parts add up to at most
/// the slab. The plugin gets twice the host's part: answers are longer than questions.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    host: u32,
    plugin: u32,
    held: u32,
}

/// More than this at once would be a longer `writev` than a socket buffer takes.
const HELD_FRAMES_MAX: u32 = 32;

impl Shares {
    fn of(slots: u32) -> Self {
        let held = (slots / 8).clamp(1, HELD_FRAMES_MAX);
        let left = slots - 2 * held;
        let host = left / 3;
        Self { host, plugin: left - host, held }
    }
}

impl Sender {
    /// Sends one frame; it may stay gathered until [`Self::flush`].
    pub(super) async fn send(&mut self, frame: Outgoing) -> Result<(), LinkError> {
        match self {
            Self::Shm(sender) => sender.send(frame).await,
            Self::Stream(sender) => sender.send(frame).await,
        }
    }

    /// Sends what is gathered.
    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Shm(_) => Ok(()),
            Self::Stream(sender) => sender.flush().await,
        }
    }
}

impl StreamSender {
    async fn send(&mut self, frame: Outgoing) -> Result<(), LinkError> {
        if frame.payload.len() <= GATHER_BYTES {
            copy::by_rapace(&self.counters, frame.payload.len());
        }
        self.gathered += 1;
        let frame = encode(frame, &mut self.sequence);
        self.counters.frames_sent.add(1);
        // Never cancelled half-way: a frame that is cut short corrupts the session. The writer task
        // ends only after this has returned.
        self.transport.send_frame(frame).await.map_err(LinkError::Transport)
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        let gathered = std::mem::take(&mut self.gathered);
        self.counters.doorbells_suppressed.add(gathered.saturating_sub(1));
        Ok(self.corked.flush().await?)
    }
}

impl ShmSender {
    async fn send(&mut self, frame: Outgoing) -> Result<(), LinkError> {
        if self.budget == 0 {
            self.budget = self.wait_for_room().await?;
        }
        self.budget -= 1;
        // Into the slot, or into the descriptor.
        copy::by_rapace(&self.link.counters, frame.payload.len());
        let frame = encode(frame, &mut self.sequence);
        self.link.counters.frames_sent.add(1);
        // rapace wakes the peer for every frame, waiting or not.
        self.link.counters.doorbells_sent.add(1);
        self.transport.send_frame(frame).await.map_err(LinkError::Transport)
    }

    /// Waits until the peer has taken descriptors from the ring; how many may be sent now.
    ///
    /// The peer's receiver never waits for anything but us, so this is short unless the peer is
    /// stopped. It blocks the thread at first: the peer's signal then wakes us with one switch
    /// instead of three, and whatever else this thread could do would only queue up behind.
    async fn wait_for_room(&self) -> Result<u32, LinkError> {
        let session = &self.link.session.0;
        for attempt in 0_u32.. {
            // Read before the look at the ring: a signal from then on is not lost.
            let word = session.send_space_futex().load(Acquire);
            let room = self.ring_share.saturating_sub(session.send_ring().ring_status().len);
            if room > 0 {
                return Ok(room);
            }
            if self.link.is_closed() {
                return Err(LinkError::Transport(TransportError::Closed));
            }
            self.link.counters.ring_full_stalls.add(1);
            if attempt < BLOCKING_WAITS {
                wait(session.send_space_futex(), word, BLOCKING_WAIT);
            } else {
                let session = session.clone();
                tokio::task::spawn_blocking(move || {
                    wait(session.send_space_futex(), word, PATIENT_WAIT);
                })
                .await
                .map_err(io::Error::other)?;
            }
        }
        unreachable!("the loop has no end")
    }
}

/// How long a full ring may block the thread at a time, and how often: 20 ms in all, after which
/// the peer is stopped rather than slow and everything else must go on.
const BLOCKING_WAIT: Duration = Duration::from_millis(1);
const BLOCKING_WAITS: u32 = 20;

/// A wait that blocks a thread of the pool; bounded so that a closed session is noticed.
const PATIENT_WAIT: Duration = Duration::from_millis(100);

impl StreamReceiver {
    /// The next frame; `None` when the peer has closed the stream.
    pub(super) async fn receive(&mut self) -> Result<Option<Incoming>, LinkError> {
        let frame = match self.transport.recv_frame().await {
            Ok(frame) => frame,
            Err(TransportError::Closed) => return Ok(None),
            Err(error) => return Err(LinkError::Transport(error)),
        };
        self.counters.frames_received.add(1);
        let incoming = decode(frame, &mut self.sequence)?;
        copy::by_rapace(&self.counters, incoming.payload().len());
        Ok(Some(incoming))
    }
}

impl ShmReceiver {
    /// Gives every frame to `handle`, and calls it with `None` whenever frames must be delivered:
    /// after as many as may be held at once, and before waiting for more. Returns when the link is
    /// closed and the ring empty.
    ///
    /// Blocks the thread, which must not be one of the runtime's.
    pub(super) fn run(
        &mut self,
        runtime: &Handle,
        mut handle: impl FnMut(Option<Incoming>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let session = self.link.session.0.clone();
        let ring = session.recv_ring();
        let futex = session.recv_data_futex();
        loop {
            // Both read before the look at the ring: a signal from then on is not lost, and what
            // was put in before the link was closed is found.
            let word = futex.load(Acquire);
            let closed = self.link.is_closed();
            let mut held = 0;
            while held < self.batch_frames && !ring.is_empty() {
                let frame = self.receive(runtime)?;
                self.link.counters.frames_received.add(1);
                handle(Some(decode(frame, &mut self.sequence)?))?;
                held += 1;
            }
            handle(None)?;
            if held > 0 {
                continue;
            }
            if closed {
                return Ok(());
            }
            wait(futex, word, HEARTBEAT);
            self.link.counters.wake_ups.add(1);
            session.update_heartbeat();
        }
    }

    /// Receives a frame whose descriptor is in the ring, without waiting.
    fn receive(&self, runtime: &Handle) -> Result<Frame, LinkError> {
        let result = {
            let mut receiving = pin!(self.transport.recv_frame());
            let _context = runtime.enter();
            match receiving.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => result,
                // Not with a single receiver; but if so, rapace's own wait will do.
                Poll::Pending => runtime.block_on(receiving),
            }
        };
        result.map_err(LinkError::Transport)
    }

    pub(super) fn link(&self) -> Arc<ShmLink> {
        self.link.clone()
    }
}

/// rapace takes a peer for dead after 3 s without a sign of life, in waits that we avoid but can't
/// rule out. Also bounds how long a closed link goes unnoticed.
const HEARTBEAT: Duration = Duration::from_millis(500);

impl ShmLink {
    /// Ends both directions; wakes those who wait.
    pub(super) fn close(&self) {
        self.closed.store(true, Release);
        futex_signal(self.session.0.recv_data_futex());
        futex_signal(self.session.0.send_space_futex());
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

impl Incoming {
    pub(super) fn payload(&self) -> &[u8] {
        match self.kind {
            Kind::Data => self.frame.payload_bytes(),
            _ => &[],
        }
    }

    /// The payload as bytes on the heap: moved if it is there already, copied if it is in a slot.
    pub(super) fn into_heap(self, counters: &Counters) -> Bytes {
        match self.frame.payload {
            Payload::Owned(payload) => Bytes::from(payload),
            Payload::Bytes(payload) => payload,
            _ => copy::to_heap(counters, self.payload()),
        }
    }
}

fn encode(outgoing: Outgoing, sequence: &mut u64) -> Frame {
    let mut descriptor = MsgDescHot::new();
    descriptor.msg_id = *sequence;
    descriptor.channel_id = outgoing.tunnel;
    descriptor.method_id = outgoing.kind as u32;
    descriptor.credit_grant = outgoing.value;
    descriptor.flags = match outgoing.kind {
        Kind::Credit => FrameFlags::CREDITS,
        Kind::Data => FrameFlags::DATA,
        Kind::End => FrameFlags::EOS,
        Kind::Open => FrameFlags::CONTROL,
        Kind::Reset => FrameFlags::ERROR,
    };
    *sequence += 1;
    match outgoing.kind {
        Kind::Data => Frame::with_bytes(descriptor, outgoing.payload),
        _ => Frame::new(descriptor),
    }
}

fn decode(frame: Frame, sequence: &mut u64) -> Result<Incoming, Violation> {
    let descriptor = &frame.desc;
    // rapace slices the descriptor by this length unchecked, and panics.
    if frame.payload.is_inline() && descriptor.payload_len as usize > INLINE_BYTES {
        return Err(Violation::PayloadLength(descriptor.payload_len));
    }
    if descriptor.msg_id != *sequence {
        return Err(Violation::Sequence { expected: *sequence, found: descriptor.msg_id });
    }
    *sequence += 1;
    let kind = Kind::try_from(descriptor.method_id)?;
    let (tunnel, value) = (descriptor.channel_id, descriptor.credit_grant);
    Ok(Incoming { kind, tunnel, value, frame })
}

/// rapace opens segments by path; this one names a descriptor, so that nothing is left on a file
/// system, whatever happens to the process.
fn descriptor_path(memory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", memory.as_raw_fd())
}

fn wait(futex: &AtomicU32, word: u32, at_most: Duration) {
    // Woken, changed meanwhile, or timed out: the caller looks again in any case.
    let _ = futex_wait(futex, word, Some(at_most));
}

impl std::fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmSession").field("role", &self.0.role()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_add_up_to_more_than_the_slab() {
        for slots in SLOTS_MIN..5_000 {
            let Shares { host, plugin, held } = Shares::of(slots);
            assert!(host + plugin + 2 * held <= slots, "{slots} slots");
            assert!(host > 0 && plugin > 0 && held > 0, "{slots} slots");
        }
    }

    #[test]
    fn a_descriptor_that_makes_rapace_panic_is_a_violation() {
        let mut descriptor = MsgDescHot::new();
        descriptor.payload_len = 17;
        let error = decode(Frame::new(descriptor), &mut 0).unwrap_err();
        assert_eq!(error, Violation::PayloadLength(17));
    }

    #[test]
    fn a_frame_out_of_sequence_is_a_violation() {
        let outgoing =
            Outgoing { kind: Kind::End, tunnel: 1, value: 0, payload: Bytes::new() };
        let frame = encode(outgoing, &mut 5);
        let error = decode(frame, &mut 4).unwrap_err();
        assert_eq!(error, Violation::Sequence { expected: 4, found: 5 });
    }
}
