//! Measures what a hop between two processes costs, for each way to join them, and what the parts
//! of `shm-ring` cost.
//!
//! `cargo bench -p shm-ring`. The other process is this program again, with `--peer`. Round trips
//! carry 64 bytes; a batch is 32 messages in one direction and one answer. The spinning variants
//! need two free cores.
#![allow(
    unsafe_code,
    reason = "none here; the crate's lint does not reach benches"
)]

use std::{
    hint::{black_box, spin_loop},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use rustix::{
    event::epoll,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags,
    },
};
use shm_ring::{
    Arena, Bell, Descriptor, Geometry, HeapWords, MappedWords, Parking, ReadySet, Receiver,
    RingLayout, Segment, Sender, Side, Span,
};

const MESSAGE_BYTES: usize = 64;
const BATCH: usize = 32;
const SIZES: [usize; 4] = [64, 4096, 64 << 10, 256 << 10];
const ARENA_BYTES: usize = 16 << 20;
const GEOMETRY: Geometry = Geometry {
    lanes: 1,
    entries: 64,
    inbound_bytes: 512 << 10,
    outbound_bytes: 512 << 10,
};

/// Two streams of bytes: one that comes from the peer, and one that goes to it.
struct Pipes<R, W>(R, W);

/// One end of a lane.
struct End {
    segment: Segment,
    side: Side,
    sender: Sender<MappedWords>,
    receiver: Receiver<MappedWords>,
    ready: ReadySet<MappedWords>,
    peer_ready: ReadySet<MappedWords>,
    parking: Parking<MappedWords>,
    peer_parking: Parking<MappedWords>,
    events: OwnedFd,
    _bell: Bell,
    peer_bell: Bell,
    spins: bool,
}

impl End {
    fn new(segment: Segment, side: Side, [bell, peer_bell]: [Bell; 2], spins: bool) -> Self {
        let peer = side.other();
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&events, &bell, epoll::EventData::new_u64(0), flags).expect("a bell");
        Self {
            sender: segment.sender(0, side),
            receiver: segment.receiver(0, side),
            ready: segment.ready(peer),
            peer_ready: segment.ready(side),
            parking: segment.parking(side),
            peer_parking: segment.parking(peer),
            segment,
            side,
            events,
            _bell: bell,
            peer_bell,
            spins,
        }
    }

    /// Waits until descriptors are there, and returns how many.
    fn wait(&mut self) -> usize {
        loop {
            let pending = self.receiver.pending().expect("an honest peer");
            if pending > 0 {
                return pending;
            }
            if self.spins {
                spin_loop();
                continue;
            }
            self.parking.park();
            if self.ready.is_empty() {
                let mut events = [MaybeUninit::uninit(); 1];
                epoll::wait(&self.events, &mut events, None).expect("a bell");
            }
            self.parking.unpark();
            self.ready.take(&mut Vec::new());
        }
    }

    fn push(&mut self, descriptor: Descriptor) {
        while self.sender.push(descriptor).is_err() {
            self.sender.refresh().expect("an honest peer");
        }
    }

    fn wake(&self) {
        if !self.spins {
            self.peer_ready.mark(0);
            if self.peer_parking.must_ring() {
                self.peer_bell.ring().expect("a bell");
            }
        }
    }

    /// Copies a message into the lane's buffer, at one of its places, and pushes its descriptor.
    fn write(&mut self, place: usize, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("short");
        let places = (GEOMETRY.inbound_bytes / length).min(64);
        // A place that is still being read must not be overwritten.
        while self.sender.in_flight() >= places as usize {
            self.wake();
            std::thread::yield_now();
            self.sender.refresh().expect("an honest peer");
        }
        let offset = u32::try_from(place).expect("few") % places * length;
        let span = Span { offset, length };
        let mut space = self.segment.space(0, self.side, span);
        space.copy_from(0, message);
        self.push(Descriptor::Buffer { offset, length });
    }

    /// Takes the pending descriptors. Messages in the lane's buffer are copied out.
    fn take(&mut self, pending: usize, target: &mut [u8]) {
        for ahead in 0..pending {
            let descriptor = self.receiver.peek(ahead).expect("an honest peer");
            if let Some(Descriptor::Buffer { offset, length }) = descriptor {
                let readable = self.segment.readable(0, self.side, offset, length);
                black_box(readable.expect("an honest peer").copy_to(target));
            }
        }
        self.receiver.release(pending);
    }
}

/// The other process; ended when dropped.
struct Peer(Child);

impl Peer {
    #[expect(clippy::disallowed_methods, reason = "no child of the orchestrator's")]
    fn start(arguments: &[&str], stdin: Stdio, stdout: Stdio) -> Self {
        let program = std::env::current_exe().expect("running");
        let mut command = Command::new(program);
        command
            .arg("--peer")
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout);
        Self(command.spawn().expect("it runs already"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many bytes the peer reads before it answers, and how many it answers with.
type Exchange = (usize, usize);

fn unix(exchange: Exchange) -> (Peer, Pipes<UnixStream, UnixStream>) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let peer = Peer::start(
        &["unix", &exchange.0.to_string(), &exchange.1.to_string()],
        OwnedFd::from(theirs).into(),
        Stdio::null(),
    );
    (peer, Pipes(ours.try_clone().expect("a descriptor"), ours))
}

fn pipe(exchange: Exchange) -> (Peer, Pipes<impl Read, impl Write>) {
    let arguments = ["pipe", &exchange.0.to_string(), &exchange.1.to_string()];
    let mut peer = Peer::start(&arguments, Stdio::piped(), Stdio::piped());
    let stdout = peer.0.stdout.take().expect("piped");
    let stdin = peer.0.stdin.take().expect("piped");
    (peer, Pipes(stdout, stdin))
}

fn tcp(exchange: Exchange) -> (Peer, Pipes<TcpStream, TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let sizes = [exchange.0.to_string(), exchange.1.to_string()];
    let arguments = ["tcp", &sizes[0], &sizes[1], &address];
    let peer = Peer::start(&arguments, Stdio::null(), Stdio::null());
    let (socket, _) = listener.accept().expect("it connects");
    socket.set_nodelay(true).expect("TCP");
    (
        peer,
        Pipes(socket.try_clone().expect("a descriptor"), socket),
    )
}

fn ring(batch: usize, spins: bool) -> (Peer, End, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mode = if spins { "spin" } else { "doorbell" };
    let arguments = [mode, &batch.to_string(), &MESSAGE_BYTES.to_string()];
    let peer = Peer::start(&arguments, OwnedFd::from(theirs).into(), Stdio::null());
    let (segment, memory) = Segment::create(GEOMETRY).expect("memory");
    let bells = [(); 2].map(|()| Bell::new().expect("a descriptor"));
    let descriptors = [memory.as_fd(), bells[0].as_fd(), bells[1].as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let byte = [IoSlice::new(b"m")];
    rustix::net::sendmsg(&ours, &byte, &mut ancillary, SendFlags::empty()).expect("a peer");
    (peer, End::new(segment, Side::Host, bells, spins), ours)
}

fn be_peer(arguments: &[String]) -> io::Result<()> {
    let number = |index: usize| arguments[index].parse::<usize>().expect("a number");
    let exchange = (number(1), number(2));
    let stdin = || io::stdin().as_fd().try_clone_to_owned();
    match arguments[0].as_str() {
        "unix" => {
            let socket = UnixStream::from(stdin()?);
            answer(Pipes(socket.try_clone()?, socket), exchange)
        }
        "pipe" => {
            let [from, to] = [stdin()?, io::stdout().as_fd().try_clone_to_owned()?];
            answer(
                Pipes(std::fs::File::from(from), std::fs::File::from(to)),
                exchange,
            )
        }
        "tcp" => {
            let socket = TcpStream::connect(&arguments[3])?;
            socket.set_nodelay(true)?;
            answer(Pipes(socket.try_clone()?, socket), exchange)
        }
        mode => {
            let mut end = receive_end(&UnixStream::from(stdin()?), mode == "spin");
            let mut target = vec![0; SIZES[SIZES.len() - 1]];
            let mut taken = 0;
            loop {
                let pending = end.wait();
                end.take(pending, &mut target);
                taken += pending;
                if taken >= exchange.0 {
                    taken -= exchange.0;
                    end.write(0, &target[..MESSAGE_BYTES]);
                    end.sender.refresh().expect("an honest peer");
                    end.wake();
                }
            }
        }
    }
}

fn receive_end(socket: &UnixStream, spins: bool) -> End {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [IoSliceMut::new(&mut byte)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket, &mut slices, &mut ancillary, flags).expect("a parent");
    let mut received = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let memory = received.next().expect("the segment");
    let segment = Segment::open(&memory, GEOMETRY).expect("laid out");
    let host = Bell::from_peer(received.next().expect("a bell")).expect("an eventfd");
    let plugin = Bell::from_peer(received.next().expect("a bell")).expect("an eventfd");
    End::new(segment, Side::Plugin, [plugin, host], spins)
}

fn answer<R: Read, W: Write>(mut pipes: Pipes<R, W>, (read, write): Exchange) -> io::Result<()> {
    let mut target = vec![0; read.min(1 << 20)];
    loop {
        let mut left = read;
        while left > 0 {
            let most = left.min(target.len());
            match pipes.0.read(&mut target[..most])? {
                0 => return Ok(()),
                count => left -= count,
            }
        }
        pipes.1.write_all(&vec![0; write])?;
    }
}

fn exchange<R: Read, W: Write>(pipes: &mut Pipes<R, W>, messages: usize, message: &[u8]) {
    for _ in 0..messages {
        pipes.1.write_all(message).expect("a peer");
    }
    pipes
        .0
        .read_exact(&mut [0; MESSAGE_BYTES])
        .expect("an answer");
}

fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip of 64 bytes");
    let (message, sizes) = ([7; MESSAGE_BYTES], (MESSAGE_BYTES, MESSAGE_BYTES));
    let (_peer, mut pipes) = unix(sizes);
    group.bench_function("unix socket", |b| {
        b.iter(|| exchange(&mut pipes, 1, &message))
    });
    let (_peer, mut pipes) = pipe(sizes);
    group.bench_function("pipe", |b| b.iter(|| exchange(&mut pipes, 1, &message)));
    let (_peer, mut pipes) = tcp(sizes);
    group.bench_function("tcp", |b| b.iter(|| exchange(&mut pipes, 1, &message)));
    for (name, spins) in [("ring, doorbell", false), ("ring, spinning", true)] {
        let (_peer, mut end, _socket) = ring(1, spins);
        group.bench_function(name, |b| b.iter(|| trip(&mut end, 1, Some(&message))));
    }
    group.finish();
}

/// Sends a batch over the ring and waits for the answer. A message is copied; without one, the
/// descriptors only name memory.
fn trip(end: &mut End, messages: usize, message: Option<&[u8]>) {
    let mut target = [0; MESSAGE_BYTES];
    for place in 0..messages {
        match message {
            Some(message) => end.write(place, message),
            None => end.push(Descriptor::Arena {
                offset: 0,
                length: 256 << 10,
            }),
        }
        // The reader may begin at once.
        if place == 0 {
            end.wake();
        }
    }
    end.wake();
    let pending = end.wait();
    end.take(pending, &mut target);
    end.sender.refresh().expect("an honest peer");
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch of 32 one way");
    for size in SIZES {
        let message = vec![7; size];
        group.throughput(Throughput::Bytes((BATCH * size) as u64));
        let sizes = (BATCH * size, MESSAGE_BYTES);
        let (_peer, mut pipes) = unix(sizes);
        let id = BenchmarkId::new("unix socket", size);
        group.bench_function(id, |b| b.iter(|| exchange(&mut pipes, BATCH, &message)));
        let (_peer, mut pipes) = pipe(sizes);
        let id = BenchmarkId::new("pipe", size);
        group.bench_function(id, |b| b.iter(|| exchange(&mut pipes, BATCH, &message)));
        let (_peer, mut pipes) = tcp(sizes);
        let id = BenchmarkId::new("tcp", size);
        group.bench_function(id, |b| b.iter(|| exchange(&mut pipes, BATCH, &message)));
        for (name, spins) in [("ring, doorbell", false), ("ring, spinning", true)] {
            let (_peer, mut end, _socket) = ring(BATCH, spins);
            let id = BenchmarkId::new(name, size);
            group.bench_function(id, |b| b.iter(|| trip(&mut end, BATCH, Some(&message))));
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("hand-over of 32 bodies of 256 KiB by reference");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, spins) in [("ring, doorbell", false), ("ring, spinning", true)] {
        let (_peer, mut end, _socket) = ring(BATCH, spins);
        group.bench_function(name, |b| b.iter(|| trip(&mut end, BATCH, None)));
    }
    group.finish();
}

/// Measures the parts, in one process.
fn parts(criterion: &mut Criterion) {
    let (arena, _file) = Arena::create(ARENA_BYTES).expect("memory");
    let mut group = criterion.benchmark_group("parts");
    for size in SIZES {
        let id = BenchmarkId::new("allocate and free", size);
        group.bench_function(id, |b| b.iter(|| black_box(arena.alloc(size))));
    }
    let body = arena.alloc(256 << 10).expect("room").freeze(256 << 10);
    group.bench_function("lease and release", |b| {
        b.iter(|| black_box(arena.lease(&body)))
    });
    let layout = RingLayout {
        published: 0,
        consumed: 8,
        waits: 9,
        entries: 16,
        capacity: 64,
    };
    let words = HeapWords::new(80);
    let mut sender = Sender::new(words.clone(), layout);
    let mut receiver = Receiver::new(words, layout);
    group.bench_function("descriptor", |b| {
        b.iter(|| {
            let descriptor = Descriptor::Buffer {
                offset: 0,
                length: 1,
            };
            sender.push(descriptor).expect("room");
            receiver.pending().expect("an honest peer");
            black_box(receiver.peek(0).expect("an honest peer"));
            receiver.release(1);
            sender.refresh().expect("an honest peer");
        });
    });
    group.finish();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|argument| argument == "--peer")
    {
        // The parent kills this process or ends itself, which is an error here.
        drop(be_peer(&arguments[1..]));
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    round_trips(&mut criterion);
    batches(&mut criterion);
    parts(&mut criterion);
    criterion.final_summary();
}
