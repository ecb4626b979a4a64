//! Frames through shared memory.
//!
//! Waiting is not left to rapace's transport. Its waits read the futex word *after* they looked at
//! the ring, so that a signal in between is lost and costs 100 ms. Each also parks a thread of the
//! blocking pool, which is three hand-overs per frame. Here a receiver thread reads the word first,
//! then looks, and waits on the futex itself. It calls `recv_frame` only when a descriptor is
//! there. A sender keeps so few descriptors in the ring that no slot allocation ever finds the slab
//! empty.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use anyhow::Context as _;
use rapace::{
    Frame, Transport, TransportError,
    transport::shm::{
        ShmMetrics, ShmSession, ShmSessionConfig, ShmTransport,
        futex::{futex_signal, futex_wait},
    },
};
use service::counters::{CounterReading, Kind, Source};
use tokio::runtime::Handle;

use super::{IncomingFrame, LinkError, Outgoing, Sender, decode, encode};
use crate::{copy, counters::Counters, framed::mux::Role};

/// The slots of a shared-memory session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Slots {
    /// Number of slots in the slab that both directions share.
    pub count: u32,
    /// Size of each slot in bytes.
    pub size_bytes: u32,
}

#[derive(Debug)]
pub(in crate::framed) struct ShmSender {
    transport: Transport,
    link: Arc<ShmLink>,
    sequence: u64,
    /// Most descriptors that may be in the ring at once.
    ring_share: u32,
    /// Number of frames that can be sent before the ring has to be looked at again.
    budget: u32,
}

/// Receives frames from shared memory, on a thread of its own.
#[derive(Debug)]
pub(in crate::framed) struct ShmReceiver {
    transport: Transport,
    link: Arc<ShmLink>,
    sequence: u64,
    /// Most frames that may be held at once; each may hold a slot.
    batch_frames: usize,
}

/// The part that both directions of a shared-memory session use.
#[derive(Debug)]
pub(in crate::framed) struct ShmLink {
    session: SessionRef,
    closed: AtomicBool,
    counters: Arc<Counters>,
}

struct SessionRef(Arc<ShmSession>);

/// Lays out a segment in `memory`, which must be empty.
pub(in crate::framed) fn create_segment(
    memory: &OwnedFd,
    slots: Slots,
) -> anyhow::Result<Arc<ShmSession>> {
    let config = ShmSessionConfig {
        ring_capacity: slots.count.next_power_of_two().max(RING_CAPACITY),
        slot_size: slots.size_bytes,
        slot_count: slots.count,
    };
    ShmSession::create_file(descriptor_path(memory), config)
        .context("could not lay out the shared memory")
}

/// Maps the segment that the peer has laid out.
pub(in crate::framed) fn open_segment(memory: &OwnedFd) -> anyhow::Result<Arc<ShmSession>> {
    ShmSession::open_file_auto(descriptor_path(memory)).context("could not map the shared memory")
}

/// rapace's counters of its slots, over all sessions of the process.
#[derive(Debug, Default)]
pub(crate) struct SlotCounters(Arc<ShmMetrics>);

impl Source for SlotCounters {
    fn readings(&self) -> Vec<CounterReading> {
        let metrics = &self.0;
        let reading = |name, unit, help, value: &AtomicU64| CounterReading {
            name,
            kind: Kind::Counter,
            unit,
            help,
            value: value.load(Relaxed),
        };
        vec![
            reading(
                "tunnel_slots_allocated",
                "slots",
                "slots allocated by rapace",
                &metrics.alloc_success,
            ),
            reading(
                "tunnel_slots_failed",
                "slots",
                "slot allocations that had to wait",
                &metrics.alloc_failures,
            ),
            reading(
                "tunnel_slots_freed",
                "slots",
                "slots freed by the receiver",
                &metrics.slot_frees,
            ),
            reading(
                "tunnel_rapace_ring_full",
                "stalls",
                "enqueues that had to wait",
                &metrics.ring_full_errors,
            ),
        ]
    }
}

/// Makes a shared-memory link of a mapped segment.
pub(in crate::framed) fn shm_link(
    session: Arc<ShmSession>,
    role: Role,
    slots: Slots,
    counters: &Arc<Counters>,
    slot_counters: &SlotCounters,
) -> (Sender, ShmReceiver) {
    let metrics = slot_counters.0.clone();
    let transport = ShmTransport::new_with_metrics(session.clone(), metrics);
    let transport = Transport::Shm(transport);
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
    let sender = ShmSender {
        transport,
        link,
        sequence: 0,
        ring_share,
        budget: 0,
    };
    (Sender::Shm(sender), receiver)
}

/// Smallest capacity of a ring: rapace's default. A larger slab gets a larger ring.
const RING_CAPACITY: u32 = 256;

/// Fewest slots that can be shared: each direction needs one in the ring and one being delivered.
pub(crate) const SLOTS_MIN: u32 = 8;

/// The parts into which the one slab is divided, so that no allocation ever finds it empty.
///
/// A slot is taken when a frame is sent and given back when its receiver has delivered it. The
/// receiver delivers at most `held` frames at once and never waits while it holds any. So at most
/// ring share + `held` slots of a direction are taken, and the four parts add up to at most the
/// slab. The plugin gets twice the host's part, since answers are longer than requests.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    host: u32,
    plugin: u32,
    held: u32,
}

/// Most frames held at once. With more, a `writev` would be longer than a socket's buffer takes.
const HELD_FRAMES_MAX: u32 = 32;

impl Shares {
    fn of(slots: u32) -> Self {
        let held = (slots / 8).clamp(1, HELD_FRAMES_MAX);
        let left = slots - 2 * held;
        let host = left / 3;
        Self {
            host,
            plugin: left - host,
            held,
        }
    }
}

impl ShmSender {
    pub(super) async fn send(&mut self, frame: Outgoing) -> Result<(), LinkError> {
        if self.budget == 0 {
            self.budget = self.wait_for_room().await?;
        }
        self.budget -= 1;
        // rapace copies into the slot or into the descriptor.
        copy::by_rapace(&self.link.counters, frame.payload.len());
        let frame = encode(frame, &mut self.sequence);
        self.link.counters.frames_sent.add(1);
        // rapace wakes the peer by a system call for every frame, whether it waits or not.
        self.link.counters.doorbells_sent.add(1);
        self.transport
            .send_frame(frame)
            .await
            .map_err(LinkError::Transport)
    }

    /// Waits until the peer has taken descriptors from the ring. Returns how many may be sent now.
    ///
    /// The peer's receiver never waits for anything but this side, so the wait is short unless the
    /// peer is stopped. It blocks the thread at first: the peer's signal then wakes this thread
    /// with one switch instead of three, and whatever else this thread could do would only queue up
    /// behind.
    async fn wait_for_room(&self) -> Result<u32, LinkError> {
        let session = &self.link.session.0;
        for attempt in 0_u32.. {
            // Read before the look at the ring: a signal from then on is not lost.
            let word = session.send_space_futex().load(Acquire);
            let room = self
                .ring_share
                .saturating_sub(session.send_ring().ring_status().len);
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

/// How long a full ring may block the thread at a time, and how often: 20 ms in all. After that,
/// the peer is stopped rather than slow, and everything else must go on.
const BLOCKING_WAIT: Duration = Duration::from_millis(1);
const BLOCKING_WAITS: u32 = 20;

/// How long a wait may block a thread of the pool. It is bounded so that a closed session is
/// noticed.
const PATIENT_WAIT: Duration = Duration::from_millis(100);

impl ShmReceiver {
    /// Gives every frame to `handle`, and calls it with `None` whenever frames must be delivered:
    /// after as many as may be held at once, and before waiting for more. Returns when the link is
    /// closed and the ring empty.
    ///
    /// Blocks the thread, which must not be one of the runtime's.
    pub(in crate::framed) fn run(
        &mut self,
        runtime: &Handle,
        mut handle: impl FnMut(Option<IncomingFrame>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let session = self.link.session.0.clone();
        let ring = session.recv_ring();
        let futex = session.recv_data_futex();
        loop {
            // Both are read before the look at the ring: a signal from then on is not lost, and
            // what was put in before the link was closed is found.
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
            match receiving
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Ready(result) => result,
                // This doesn't happen with a single receiver. If it does, rapace's own wait will
                // do.
                Poll::Pending => runtime.block_on(receiving),
            }
        };
        result.map_err(LinkError::Transport)
    }

    pub(in crate::framed) fn link(&self) -> Arc<ShmLink> {
        self.link.clone()
    }
}

/// Longest time between two signs of life. rapace takes a peer for dead after 3 s without one, in
/// waits that we avoid but can't rule out. This also bounds how long a closed link goes unnoticed.
const HEARTBEAT: Duration = Duration::from_millis(500);

impl ShmLink {
    /// Ends both directions, and wakes those who wait.
    pub(in crate::framed) fn close(&self) {
        self.closed.store(true, Release);
        futex_signal(self.session.0.recv_data_futex());
        futex_signal(self.session.0.send_space_futex());
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }
}

/// Returns a path by which rapace can open a segment. It names a descriptor, so that nothing is
/// left on a file system, whatever happens to the process.
fn descriptor_path(memory: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", memory.as_raw_fd())
}

fn wait(futex: &AtomicU32, word: u32, at_most: Duration) {
    // The thread was woken, the word has changed, or time is up: the caller looks again in any
    // case.
    let _ = futex_wait(futex, word, Some(at_most));
}

impl std::fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmSession")
            .field("role", &self.0.role())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt, process};

    use rapace::MsgDescHot;
    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::hostile::RUNTIME;

    #[test]
    fn shares_never_add_up_to_more_than_the_slab() {
        for slots in SLOTS_MIN..5_000 {
            let Shares { host, plugin, held } = Shares::of(slots);
            assert!(host + plugin + 2 * held <= slots, "{slots} slots");
            assert!(host > 0 && plugin > 0 && held > 0, "{slots} slots");
        }
    }

    const SIGSEGV: i32 = 11;

    /// Environment variable that is set in the process that is to be ended.
    const VICTIM: &str = "HOPBENCH_SHM_VICTIM";

    /// rapace trusts what is in the segment at every read. If this test fails, rapace has stopped
    /// doing so, and docs/SHM.md and docs/RELIABILITY.md must say so.
    #[test]
    fn a_peer_that_writes_into_the_segment_can_end_the_process() {
        if env::var_os(VICTIM).is_some() {
            RUNTIME.block_on(receive_from_elsewhere());
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "no child of the orchestrator's")]
        let mut victim = process::Command::new(env::current_exe().expect("it runs"));
        let name = "framed::rapace::shm::tests::\
                    a_peer_that_writes_into_the_segment_can_end_the_process";
        victim.args(["--exact", name]).env(VICTIM, "yes");
        let ended = victim.output().expect("it starts");
        let errors = String::from_utf8_lossy(&ended.stderr);
        // Address sanitizer reports the signal and exits.
        let is_fault = ended.status.signal() == Some(SIGSEGV) || errors.contains("SEGV");
        assert!(is_fault, "{:?}: {errors}", ended.status);
    }

    /// Receives a payload from where the peer says that its slot is.
    async fn receive_from_elsewhere() {
        const SLOTS: Slots = Slots {
            count: SLOTS_MIN,
            size_bytes: 64,
        };
        let memory = rustix::fs::memfd_create("victim", MemfdFlags::CLOEXEC).expect("memory");
        let theirs = create_segment(&memory, SLOTS).expect("memory");
        let ours = open_segment(&memory).expect("just made");
        let peer = Transport::Shm(ShmTransport::new(theirs));
        let frame = Frame::with_bytes(MsgDescHot::new(), vec![7; 40].into());
        peer.send_frame(frame).await.expect("room");

        // The segment has a header, two rings (each a header and descriptors), and then the slab's
        // header, which begins with the size of a slot. The payload's offset is in the first
        // descriptor.
        let rings = 128 + 2 * (192 + u64::from(RING_CAPACITY) * size_of::<MsgDescHot>() as u64);
        let offset_in_descriptor = std::mem::offset_of!(MsgDescHot, payload_offset) as u64;
        let far_away = (u32::MAX / 2).to_le_bytes();
        for (at, value) in [
            (rings, u32::MAX.to_le_bytes()),
            (128 + 192 + offset_in_descriptor, far_away),
        ] {
            rustix::io::pwrite(&memory, &value, at).expect("writable");
        }
        let received = Transport::Shm(ShmTransport::new(ours)).recv_frame().await;
        let sum: u32 = match received {
            Ok(frame) => frame
                .payload_bytes()
                .iter()
                .map(|byte| u32::from(*byte))
                .sum(),
            Err(error) => panic!("refused: {error}"),
        };
        panic!("read without a fault: {sum}");
    }
}
