//! The event loop between sockets and lanes: one thread, which sleeps in one place.
//!
//! The same on both sides. On the host, sockets come from outside and each is given a lane; on a
//! plugin with an upstream, lanes come from the peer and each is given a socket.

mod connecting;
mod connection;
mod ending;
mod helpers;
mod lending;
mod policy;

use std::{
    collections::VecDeque,
    fmt, io,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use origin::server::Address;
use shm_ring::Side;

pub(in crate::ring) use self::helpers::Helpers;
use self::{
    connecting::Connecting,
    connection::{Connection, Progress, Readiness},
    ending::Endings,
    helpers::Returns,
    policy::{Burst, Due, Policy},
};
use super::{
    lane::{Lane, State},
    link::{Link, LinkError},
    socket::RelaySocket,
    spin::Spin,
};
use crate::transport::SpinLimit;

/// Something that stands for a connection as long as it lasts, and does its work when dropped.
pub(crate) type Guard = Box<dyn Send>;

/// What the loop is told from outside.
pub(crate) enum Incoming {
    /// A client, for which a lane is to be opened.
    Client(RelaySocket, Guard),
    /// The peer has gone: what it has sent is still delivered, and the loop ends.
    PeerGone,
    /// Every connection is reset, and the loop ends.
    Stop,
}

/// The way to tell the loop.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    incoming: mpsc::Sender<Incoming>,
    waker: Arc<Waker>,
    /// That it was given and has not ended. Orders nothing.
    clients: Arc<AtomicUsize>,
}

/// One of a relay's clients.
struct Counted {
    _guard: Guard,
    clients: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayOptions {
    pub(super) spin: SpinLimit,
    /// Threads for what takes long, each on a core of its own.
    pub(super) helpers: usize,
    /// What is sent to the peer goes on to another server.
    pub(crate) before_upstream: bool,
    /// A connection is reset when nothing has moved for so long.
    pub(crate) idle_timeout: Option<Duration>,
}

impl RelayOptions {
    /// For a session that may use so many cores.
    pub(crate) fn new(spin: SpinLimit, cores: usize) -> Self {
        let helpers = if cores > 1 { cores } else { 0 };
        Self {
            spin,
            helpers,
            before_upstream: false,
            idle_timeout: None,
        }
    }
}

/// Where a plugin's lanes go.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: Arc<Address>,
    pub(crate) connect_timeout: Duration,
    /// Gives what stands for a connection; `None` if no new ones are wanted.
    pub(crate) guard: Arc<dyn Fn() -> Option<Guard> + Send + Sync>,
}

/// What a lane is used for at the moment.
enum Use {
    /// Nothing. On the host, it can be opened.
    Free,
    Open(Box<Connection>),
    /// With a helper; what came meanwhile.
    Lent(Missed),
    /// This side is done with it, and the peer is not known to be.
    Closing(Box<Lane>),
}

/// What happened to a connection that could not be looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    peer: bool,
    socket: Option<Readiness>,
}

struct Loop {
    link: Arc<Link>,
    poll: Poll,
    incoming: mpsc::Receiver<Incoming>,
    upstream: Option<Upstream>,
    lanes: Vec<Use>,
    /// Of each lane, the last one that was opened.
    generations: Vec<u64>,
    free: Vec<usize>,
    /// Clients that wait for a lane. Bounded by the guards there are.
    waiting: VecDeque<(RelaySocket, Guard)>,
    connecting: Connecting,
    endings: Endings,
    idle_timeout: Option<Duration>,
    /// When to look for idle connections; `None` while there is none at all.
    next_look: Option<Instant>,
    /// Set when the peer has gone: until when what it sent may be delivered.
    last_words: Option<Instant>,
    burst: Burst,
    spin: Spin,
    policy: Policy,
    /// For which lanes an answer is due.
    due: Due,
    helpers: Arc<Helpers>,
    returns: Arc<Returns>,
    /// Connections that are with helpers.
    lent: usize,
}

const BELL: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// How long delivering what a peer that is gone has sent may take.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// With more answers due than these, there is always something to do; what is found by sleeping
/// comes in larger batches.
const FEW: usize = 8;

/// The same for a host before a plugin that has an upstream: there another event loop and the
/// origin want the cores besides.
const FEW_BEFORE_UPSTREAM: usize = 4;

/// Events taken at once: with more, those that come first wait for those that come last.
const EVENTS: usize = 256;

impl Relay {
    /// A relay for a link, and the loop that a thread of its own must run.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(crate) fn new(
        link: Arc<Link>,
        upstream: Option<Upstream>,
        options: RelayOptions,
        helpers: Arc<Helpers>,
    ) -> io::Result<(Self, impl FnOnce() -> Result<(), LinkError> + Send)> {
        let (relay, mut event_loop) = Self::with_loop(link, upstream, options, helpers)?;
        Ok((relay, move || event_loop.run()))
    }

    fn with_loop(
        link: Arc<Link>,
        upstream: Option<Upstream>,
        options: RelayOptions,
        helpers: Arc<Helpers>,
    ) -> io::Result<(Self, Loop)> {
        let poll = Poll::new()?;
        let bell = link.bell.as_fd().as_raw_fd();
        // Edge-triggered: each ring is an event, and its count need not be read.
        poll.registry()
            .register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (sender, incoming) = mpsc::channel();
        let lanes = link.segment.geometry().lanes;
        let few = match options.before_upstream {
            true => FEW_BEFORE_UPSTREAM,
            false => FEW,
        };
        let event_loop = Loop {
            poll,
            incoming,
            upstream,
            lanes: (0..lanes).map(|_| Use::Free).collect(),
            generations: vec![0; lanes],
            // The lowest first: the fewer are ever used, the less memory is.
            free: (0..lanes).rev().collect(),
            waiting: VecDeque::new(),
            connecting: Connecting::default(),
            endings: Endings::default(),
            idle_timeout: options.idle_timeout,
            next_look: None,
            last_words: None,
            burst: Burst::default(),
            spin: Spin::new(options.spin, &link.counters),
            policy: Policy::new(few),
            helpers,
            returns: Returns::new(&waker),
            lent: 0,
            due: Due::new(lanes),
            link,
        };
        let relay = Self {
            incoming: sender,
            waker,
            clients: Arc::default(),
        };
        Ok((relay, event_loop))
    }

    /// Clients that it has, those that wait for a lane included.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// A guard that counts its client as one of this relay's.
    pub(super) fn counted(&self, guard: Guard) -> Guard {
        self.clients.fetch_add(1, Relaxed);
        Box::new(Counted {
            _guard: guard,
            clients: self.clients.clone(),
        })
    }

    /// Tells the loop; nothing happens if it has ended.
    pub(crate) fn tell(&self, incoming: Incoming) {
        if self.incoming.send(incoming).is_ok()
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!(%error, "could not wake the relay");
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Relaxed);
    }
}

impl Loop {
    fn run(&mut self) -> Result<(), LinkError> {
        let mut events = Events::with_capacity(EVENTS);
        let mut ready = Vec::new();
        loop {
            self.link.ready.take(&mut ready);
            self.lend(&mut ready)?;
            for lane in ready.drain(..) {
                self.burst.pause_if_long();
                self.on_peer(lane)?;
            }
            self.take_back()?;
            if self.is_over()? {
                return Ok(());
            }
            self.link.ring()?;
            self.sleep(&mut events)?;
            for event in &events {
                match event.token() {
                    BELL => {}
                    WAKER => {
                        if self.on_incoming()? {
                            return Ok(());
                        }
                    }
                    Token(lane) => self.on_socket(lane, Readiness::from(event))?,
                }
            }
            self.go_on_connecting();
            self.end_arrived();
            self.reset_idle();
        }
    }

    /// Waits for the peer or a socket; only looks at the sockets if the peer has something.
    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let deadlines = [
            self.connecting.next_deadline(),
            self.last_words,
            self.next_look,
            self.endings.next_look(),
        ];
        let next_deadline = deadlines.into_iter().flatten().min();
        let mut at_most =
            next_deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let is_at_leisure = self.policy.is_at_leisure(&mut self.due, Instant::now);
        let (poll, link) = (&mut self.poll, &self.link);
        let (lent, returns) = (self.lent, &self.returns);
        let found = is_at_leisure
            && self.spin.look(|| {
                // An error shows again when it is waited.
                let polled = poll.poll(events, Some(Duration::ZERO));
                polled.is_ok() && !events.is_empty()
                    || !link.ready.is_empty()
                    || lent > 0 && returns.has_come()
            });
        if found {
            return Ok(());
        }
        self.link.parking.park();
        let came_back = self.lent > 0 && self.returns.is_some();
        if came_back || !self.link.ready.is_empty() {
            at_most = Some(Duration::ZERO);
        }
        let polled = self.poll.poll(events, at_most);
        self.link.parking.unpark();
        self.link.counters.wake_ups.add(1);
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    /// The peer has marked a lane.
    fn on_peer(&mut self, index: usize) -> Result<(), LinkError> {
        match &mut self.lanes[index] {
            Use::Open(connection) => {
                let progress = connection.on_peer()?;
                self.burst.add(connection.take_written());
                self.after(index, progress);
            }
            Use::Lent(missed) => missed.peer = true,
            Use::Closing(_) => self.recycle(index)?,
            Use::Free => {}
        }
        if self.link.side == Side::Plugin && matches!(self.lanes[index], Use::Free) {
            self.answer(index);
        }
        Ok(())
    }

    fn on_socket(&mut self, index: usize, now: Readiness) -> Result<(), LinkError> {
        match &mut self.lanes[index] {
            Use::Open(connection) => {
                let progress = connection.on_socket(now)?;
                self.after(index, progress);
            }
            Use::Lent(missed) => missed.socket = Some(missed.socket.unwrap_or_default() | now),
            // An event of a connection that has ended since is late.
            Use::Closing(_) | Use::Free => {}
        }
        Ok(())
    }

    fn after(&mut self, index: usize, progress: Progress) {
        match &mut self.lanes[index] {
            Use::Open(connection) if progress == Progress::Goes => {
                let has_asked = connection.take_asked();
                self.due.set(index, connection.awaits_answer(), has_asked);
                if connection.is_ending() {
                    self.endings.add(index);
                }
            }
            _ => self.due.set(index, false, false),
        }
        if progress == Progress::Goes {
            return;
        }
        let Use::Open(connection) = std::mem::replace(&mut self.lanes[index], Use::Free) else {
            return;
        };
        if progress != Progress::Done {
            self.link.counters.tunnels_failed.add(1);
        }
        self.link.counters.tunnels_open.subtract(1);
        self.lanes[index] = Use::Closing(Box::new(connection.end(progress)));
        // The peer may be done already; if not, it marks the lane when it is.
        if let Err(error) = self.recycle(index) {
            tracing::debug!(%error, "could not recycle a lane");
        }
    }

    /// Makes a lane free if the peer is done with it too.
    fn recycle(&mut self, index: usize) -> Result<(), LinkError> {
        let Use::Closing(lane) = &mut self.lanes[index] else {
            return Ok(());
        };
        let done = match self.link.side {
            Side::Host => lane.peer_state() != State::Open,
            // It has nothing to recycle: it only keeps what the host may still read.
            Side::Plugin => lane.is_done()?,
        };
        if done {
            self.lanes[index] = Use::Free;
            if self.link.side == Side::Host {
                self.free.push(index);
                self.open_waiting();
            }
        }
        Ok(())
    }

    /// What came from outside; whether to end.
    fn on_incoming(&mut self) -> Result<bool, LinkError> {
        while let Ok(incoming) = self.incoming.try_recv() {
            match incoming {
                // Too late: closing it is the answer.
                Incoming::Client(..) if self.last_words.is_some() => {}
                Incoming::Client(socket, guard) => self.waiting.push_back((socket, guard)),
                Incoming::PeerGone => {
                    self.last_words = Some(Instant::now() + LAST_WORDS_TIMEOUT);
                    self.waiting.clear();
                    self.connecting.forget_blocked();
                }
                Incoming::Stop => {
                    self.stop();
                    return Ok(true);
                }
            }
        }
        self.open_waiting();
        Ok(false)
    }

    fn open_waiting(&mut self) {
        while self.last_words.is_none()
            && !self.waiting.is_empty()
            && let Some(index) = self.free.pop()
            && let Some((socket, guard)) = self.waiting.pop_front()
        {
            self.generations[index] += 1;
            let lane = Lane::open(&self.link, index, self.generations[index]);
            self.link.mark(index);
            self.connect(index, lane, socket, guard);
        }
    }

    /// Puts a socket on a lane.
    fn connect(&mut self, index: usize, lane: Lane, mut socket: RelaySocket, guard: Guard) {
        self.link.counters.tunnels_opened.add(1);
        self.link.counters.tunnels_open.add(1);
        let registered = socket.register(self.poll.registry(), Token(index));
        let upstream = self.upstream.as_ref().map(|it| it.address.clone());
        let connection = Connection::new(lane, socket, guard, upstream);
        self.lanes[index] = Use::Open(Box::new(connection));
        if self.next_look.is_none() {
            self.next_look = self.look_after(Instant::now());
        }
        if let Err(error) = registered {
            tracing::warn!(%error, "could not watch a connection");
            self.after(index, Progress::Failed);
        }
    }
}

/// Says that a lane will not be used.
pub(super) fn refuse(mut lane: Lane) {
    lane.finish(State::Reset);
}

impl Drop for Loop {
    /// However the loop ends: nobody is left waiting for an answer.
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = self.link.ring() {
            tracing::debug!(%error, "could not wake the peer");
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(socket, _) => f.debug_tuple("Client").field(socket).finish(),
            Self::PeerGone => f.write_str("PeerGone"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
