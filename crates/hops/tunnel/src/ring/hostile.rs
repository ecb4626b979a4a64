//! A hostile peer that writes arbitrary words into the segment, while connections send and receive.

use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{Arc, Weak},
};

use shm_ring::{Arena, Descriptor, MappedWords, ReadySet, Segment, Sender, Side};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::*;
use crate::{
    counters::Counters,
    framed::LocalSocket,
    hostile::{RUNTIME, WATCHDOG},
    transport::{SpinLimit, Tuning},
};

pub(super) const ARENA_BYTES: usize = 1 << 20;
const LANES: usize = 4;

/// Number of bytes at the segment's start that hold its words.
const CONTROL_BYTES: u64 = 8192;

/// Number of bytes that make a move: what to do, of what kind, where, and a number.
pub(super) const MOVE_BYTES: usize = 8;
type Move = [u64; 3];

pub(super) fn terms() -> Terms {
    Terms::new(1, LANES, Some(8), Some(4))
}

/// The hostile peer. It has the segment, and the bell that wakes the other side.
struct Hostile {
    side: Side,
    segment: Segment,
    senders: Vec<Sender<MappedWords>>,
    ready: ReadySet<MappedWords>,
    memory: File,
    bell: File,
}

impl Hostile {
    fn new(side: Side, memory: OwnedFd, bell: OwnedFd) -> Self {
        let segment = Segment::open(&memory, terms().geometry()).expect("laid out");
        Self {
            side,
            senders: (0..LANES).map(|lane| segment.sender(lane, side)).collect(),
            ready: segment.ready(side),
            segment,
            memory: memory.into(),
            bell: bell.into(),
        }
    }

    /// Writes a word somewhere, mostly where counts, states and descriptors are.
    fn scribble(&mut self, [kind, place, number]: Move) {
        let length = self.memory.metadata().expect("a file").len();
        let control = CONTROL_BYTES.min(length);
        let within = if kind % 4 == 0 { length } else { control };
        let offset = place % (within / 8) * 8;
        let word = match kind / 4 % 5 {
            0 => number % 4,
            1 => number % 64,
            2 => u64::MAX - number % 3,
            // A descriptor's kind is in its highest bits.
            3 => ((number % 4) << 62) | ((number / 4 % (1 << 20)) << 32) | (number % (1 << 20)),
            _ => number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        self.memory
            .write_all_at(&word.to_ne_bytes(), offset)
            .expect("not sealed against writing");
    }

    /// Opens or ends a lane, or sends something on it.
    fn behave(&mut self, [kind, place, number]: Move) {
        let index = usize::try_from(place).expect("64 bits") % LANES;
        match kind % 3 {
            0 => {
                let word = ((1 + number % 4) << 2) | (number / 4 % 8 / 6);
                self.segment.state(index, self.side).publish(word);
            }
            1 => {
                let length = u32::try_from(number % 4096).expect("little");
                let descriptor = match number / 4096 % 8 {
                    0..2 => Descriptor::Arena { offset: 0, length },
                    _ => Descriptor::Buffer { offset: 0, length },
                };
                // A ring that is full or damaged takes no more.
                let _ = self.senders[index].push(descriptor);
            }
            _ => {
                let _ = self.senders[index].refresh();
            }
        }
        self.ready.mark(index);
    }

    fn run(mut self, moves: &[u8]) {
        for bytes in moves.chunks_exact(MOVE_BYTES) {
            let [what, kind, place @ .., n0, n1, n2] = bytes else {
                unreachable!("a move has so many bytes");
            };
            let place = place
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let number = u64::from_le_bytes([*n0, *n1, *n2, 0, 0, 0, 0, 0]);
            let step = [u64::from(*kind), place, number];
            if what % 4 == 0 {
                self.scribble(step);
            } else {
                self.behave(step);
            }
            if what / 4 % 3 == 0 {
                self.bell.write_all(&1_u64.to_ne_bytes()).expect("a bell");
                thread::yield_now();
            }
        }
    }
}

/// Sends until nobody reads, and reads to the end.
pub(crate) async fn be_client(socket: UnixStream) {
    let (mut reader, mut writer) = socket.into_split();
    let sending = tokio::spawn(async move {
        for _ in 0..64 {
            if writer.write_all(&[7; 1500]).await.is_err() {
                break;
            }
        }
    });
    // A reset is an end, too.
    let _ = reader.read_to_end(&mut Vec::new()).await;
    sending.abort();
}

/// Makes the moves of a plugin against a host. Returns whether the host noticed a violation.
///
/// # Panics
/// If the host panics, hangs, or keeps a client waiting.
pub fn attack_host(moves: &[u8]) -> bool {
    RUNTIME.block_on(attack_host_with(Vec::from(moves)))
}

async fn attack_host_with(moves: Vec<u8>) -> bool {
    let (host, [memory, bell, _]) = Attacked::start(2).await;
    let mut clients = JoinSet::new();
    for _ in 0..LANES + 2 {
        clients.spawn(be_client(host.connect()));
    }
    let hostile = Hostile::new(Side::Plugin, memory, bell);
    tokio::task::spawn_blocking(move || hostile.run(&moves))
        .await
        .expect("no panic");
    let ended = host.leave().await;
    assert!(!matches!(ended, Err(RelayError::Panicked)));
    let told = timeout(WATCHDOG, clients.join_all()).await;
    assert!(told.is_ok(), "a client was kept waiting");
    // Some threads are still ending. If the process exits now, they are reported as leaks.
    #[cfg(fuzzing)]
    for _ in 0..10 {
        // The kernel ends its list early if the thread that it is listing ends.
        while is_relaying() {
            tokio::task::yield_now().await;
        }
    }
    matches!(ended, Err(RelayError::Violation(_)))
}

/// A host whose plugin is the attacker.
pub(super) struct Attacked {
    relays: Relays,
    running: JoinHandle<Result<(), RelayError>>,
    link: Weak<Link>,
    pub(super) counters: Arc<Counters>,
    /// Open as long as the plugin is there.
    socket: UnixStream,
    _stop: watch::Sender<bool>,
}

impl Attacked {
    /// Starts a host with `cores` cores. Also returns what a plugin gets: the segment, the host's
    /// bell and its own.
    pub(super) async fn start(cores: usize) -> (Self, [OwnedFd; 3]) {
        let counters = Arc::new(Counters::default());
        let (offer, descriptors) = Offer::new(terms()).expect("memory");
        let (_, arena) = Arena::create(ARENA_BYTES).expect("memory");
        let link = offer.accept((&arena, ARENA_BYTES), &counters);
        let link = Arc::new(link.expect("an arena"));
        let used = Arc::downgrade(&link);
        let (ours, socket) = UnixStream::pair().expect("sockets");
        let (stop, stopped) = watch::channel(false);
        let (give, given) = oneshot::channel();
        let running = tokio::spawn(run_relays(
            vec![link],
            None,
            RelayOptions::new(&Tuning::default(), cores),
            ours,
            stopped,
            move |relays| drop(give.send(relays)),
        ));
        let host = Self {
            relays: given.await.expect("started"),
            running,
            link: used,
            counters,
            socket,
            _stop: stop,
        };
        (host, descriptors)
    }

    /// Connects a client and returns its socket.
    pub(super) fn connect(&self) -> UnixStream {
        let (near, far) = UnixStream::pair().expect("sockets");
        let socket = RelaySocket::from(LocalSocket::Unix(near.into_std().expect("a socket")));
        self.relays.give(socket, Box::new(()));
        far
    }

    /// Makes the plugin leave. Returns how the session ended, of which nothing may be left.
    pub(super) async fn leave(self) -> Result<(), RelayError> {
        drop(self.socket);
        let ended = timeout(WATCHDOG, self.running).await.expect("it ends");
        // What the peer sent last is delivered in the background, after the session.
        let forgotten = async {
            while self.link.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let forgotten = timeout(WATCHDOG, forgotten).await;
        assert!(forgotten.is_ok(), "a relay was left over");
        ended.expect("no panic")
    }
}

/// Returns whether some relay still has a thread.
#[cfg(fuzzing)]
fn is_relaying() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    // A thread may end while it is looked at.
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm"));
    let mut names = threads.filter_map(|thread| name(thread.ok()?).ok());
    names.any(|name| name.starts_with("relay"))
}

/// Makes the moves of a host against a plugin. Returns whether the plugin noticed a violation.
///
/// # Panics
/// If the plugin panics, hangs, or keeps a stream, a slot or a connection.
pub fn attack_plugin(moves: &[u8]) -> bool {
    RUNTIME.block_on(attack_plugin_with(Vec::from(moves)))
}

async fn attack_plugin_with(moves: Vec<u8>) -> bool {
    let counters = Arc::new(Counters::default());
    let (_offer, descriptors) = Offer::new(terms()).expect("memory");
    let copies = descriptors
        .each_ref()
        .map(|descriptor| descriptor.try_clone().expect("a descriptor"));
    let (arena, _file) = Arena::create(ARENA_BYTES).expect("memory");
    let body = arena.alloc(8192).expect("room").freeze(8192);
    let link = Link::of_offer(terms(), descriptors, arena.clone(), &counters);
    let link = Arc::new(link.expect("laid out"));
    let streams = Arc::new(std::sync::Mutex::new(JoinSet::new()));
    let theirs = streams.clone();
    let counted = counters.clone();
    let serving = tokio::spawn(async move {
        let serve_stream = |mut stream: LaneStream| {
            let body = body.clone();
            theirs.lock().expect("no panic").spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&body).await.is_err() {
                        break;
                    }
                }
            });
            true
        };
        serve(vec![link], SpinLimit::Auto, &counted, serve_stream).await
    });
    let [memory, _, plugin_bell] = copies;
    let hostile = Hostile::new(Side::Host, memory, plugin_bell);
    tokio::task::spawn_blocking(move || hostile.run(&moves))
        .await
        .expect("no panic");
    serving.abort();
    let noticed = match serving.await {
        Ok(ended) => matches!(ended, Err(RelayError::Violation(_))),
        Err(ended) => {
            assert!(ended.is_cancelled(), "{ended}");
            false
        }
    };
    let streams = std::mem::take(&mut *streams.lock().expect("no panic"));
    let told = timeout(WATCHDOG, streams.join_all()).await;
    assert!(told.is_ok(), "a stream was kept waiting");
    assert_eq!(counters.tunnels_open.get(), 0);
    assert_eq!(arena.used_bytes(), 0, "slots are leaked");
    noticed
}
