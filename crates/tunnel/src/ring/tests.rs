//! Goal: whatever a peer writes into the segment, the other side goes on or ends the session with
//! an error; it never panics, hangs or keeps a client waiting.
//! Method: the peer is a thread that does what a peer may do, and writes random words through the
//! memory file in between, while connections send and receive.

use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
    time::Duration,
};

use shm_ring::{Arena, Descriptor, MappedWords, ReadySet, Segment, Sender, Side};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Runtime,
    sync::{oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::*;
use crate::{counters::Counters, framed::LocalSocket};

const ARENA_BYTES: usize = 1 << 20;
const LANES: usize = 4;
const WRITES: usize = 400;

/// Far beyond what anything here takes: a watchdog, not an assertion.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Sessions per side; `HOPBENCH_HOSTILE_ROUNDS` for more.
fn rounds() -> u64 {
    let text = std::env::var("HOPBENCH_HOSTILE_ROUNDS").ok();
    text.map_or(60, |text| text.parse().expect("a number"))
}

fn terms() -> Terms {
    Terms::new(1, LANES, Some(8), Some(4))
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

/// What the hostile peer has: the segment, and the bell that wakes the other side.
struct Hostile {
    side: Side,
    segment: Segment,
    senders: Vec<Sender<MappedWords>>,
    ready: ReadySet<MappedWords>,
    memory: File,
    bell: File,
    random: u64,
}

impl Hostile {
    fn new(seed: u64, side: Side, memory: OwnedFd, bell: OwnedFd) -> Self {
        let segment = Segment::open(&memory, terms().geometry()).expect("laid out");
        Self {
            side,
            senders: (0..LANES).map(|lane| segment.sender(lane, side)).collect(),
            ready: segment.ready(side),
            segment,
            memory: memory.into(),
            bell: bell.into(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % limit
    }

    /// Writes a word somewhere; mostly where counts, states and descriptors are.
    fn scribble(&mut self) {
        let length = self.memory.metadata().expect("a file").len();
        let control = 8192.min(length);
        let within = if self.below(4) == 0 { length } else { control };
        let offset = self.below(within / 8) * 8;
        let word = match self.below(5) {
            0 => self.below(4),
            1 => self.below(64),
            2 => u64::MAX - self.below(3),
            // A descriptor's kind is in its highest bits.
            3 => self.below(4) << 62 | self.below(1 << 20) << 32 | self.below(1 << 20),
            _ => self.random,
        };
        self.memory
            .write_all_at(&word.to_ne_bytes(), offset)
            .expect("not sealed against writing");
    }

    /// Opens or ends a lane, or sends something on it.
    fn behave(&mut self) {
        let index = usize::try_from(self.below(LANES as u64)).expect("few");
        match self.below(3) {
            0 => {
                let word = ((1 + self.below(4)) << 2) | (self.below(8) / 6);
                self.segment.state(index, self.side).publish(word);
            }
            1 => {
                let length = u32::try_from(self.below(4096)).expect("little");
                let descriptor = Descriptor::Buffer { offset: 0, length };
                // One that is full or damaged takes no more.
                let _ = self.senders[index].push(descriptor);
            }
            _ => {
                let _ = self.senders[index].refresh();
            }
        }
        self.ready.mark(index);
    }

    fn run(mut self) {
        for _ in 0..WRITES {
            if self.below(4) == 0 {
                self.scribble();
            } else {
                self.behave();
            }
            if self.below(3) == 0 {
                self.bell.write_all(&1_u64.to_ne_bytes()).expect("a bell");
                thread::yield_now();
            }
        }
    }
}

/// Sends until nobody reads, and reads to the end.
async fn be_client(socket: UnixStream) {
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

/// Whether what was written was noticed.
async fn attack_host(seed: u64) -> bool {
    let counters = Arc::new(Counters::default());
    let (offer, [memory, host_bell, _]) = Offer::new(terms()).expect("memory");
    let (_arena, file) = Arena::create(ARENA_BYTES).expect("memory");
    let link = offer.accept(&file, ARENA_BYTES, &counters);
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let (_stop, stopped) = watch::channel(false);
    let (give, given) = oneshot::channel();
    let running = tokio::spawn(run_relays(
        vec![Arc::new(link.expect("an arena"))],
        None,
        (SpinLimit::Auto, true),
        ours,
        stopped,
        move |relays| drop(give.send(relays)),
    ));
    let relays = given.await.expect("started");
    let mut clients = JoinSet::new();
    for _ in 0..LANES + 2 {
        let (near, far) = UnixStream::pair().expect("sockets");
        let socket = RelaySocket::try_from(LocalSocket::Unix(near)).expect("a socket");
        relays.give(socket, Box::new(()));
        clients.spawn(be_client(far));
    }
    let hostile = Hostile::new(seed, Side::Plugin, memory, host_bell);
    tokio::task::spawn_blocking(|| hostile.run())
        .await
        .expect("no panic");
    drop(theirs);
    let ended = timeout(WATCHDOG, running).await.expect("it ends");
    let ended = ended.expect("no panic");
    assert!(!matches!(ended, Err(LinkError::Panicked)), "seed {seed}");
    let told = timeout(WATCHDOG, clients.join_all()).await;
    assert!(told.is_ok(), "seed {seed}: a client was kept waiting");
    matches!(ended, Err(LinkError::Violation(_)))
}

/// Whether what was written was noticed.
async fn attack_plugin(seed: u64) -> bool {
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
    let hostile = Hostile::new(seed, Side::Host, memory, plugin_bell);
    tokio::task::spawn_blocking(|| hostile.run())
        .await
        .expect("no panic");
    serving.abort();
    let noticed = match serving.await {
        Ok(ended) => matches!(ended, Err(LinkError::Violation(_))),
        Err(ended) => {
            assert!(ended.is_cancelled(), "seed {seed}: {ended}");
            false
        }
    };
    let streams = std::mem::take(&mut *streams.lock().expect("no panic"));
    let told = timeout(WATCHDOG, streams.join_all()).await;
    assert!(told.is_ok(), "seed {seed}: a stream was kept waiting");
    assert_eq!(counters.tunnels_open.get(), 0, "seed {seed}");
    assert_eq!(arena.used_bytes(), 0, "seed {seed}: slots are leaked");
    noticed
}

#[test]
fn a_host_outlives_whatever_its_plugin_writes() {
    let runtime = runtime();
    let noticed = (0..rounds()).filter(|seed| runtime.block_on(attack_host(*seed)));
    assert!(noticed.count() > 0, "nothing that was written was wrong");
}

#[test]
fn a_plugin_outlives_whatever_its_host_writes() {
    let runtime = runtime();
    let noticed = (0..rounds()).filter(|seed| runtime.block_on(attack_plugin(*seed)));
    assert!(noticed.count() > 0, "nothing that was written was wrong");
}
