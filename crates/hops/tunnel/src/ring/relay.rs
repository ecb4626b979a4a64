//! The event loop between sockets and lanes: one thread, which sleeps in one place.
//!
//! The loop is the same on both sides. On the host, sockets come from outside and each is given a
//! lane; on a plugin with an upstream, lanes come from the peer and each is given a socket.

mod burst;
mod connecting;
mod connection;
mod due;
mod ending;
mod helpers;
mod lending;

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
use service::Address;
use shm_ring::Side;

pub(in crate::ring) use self::helpers::Helpers;
use self::{
    burst::Burst,
    connecting::Connecting,
    connection::{Connection, Progress, Readiness},
    due::Due,
    ending::Endings,
    helpers::Returns,
};
use super::{
    lane::{Lane, State},
    link::{Link, RelayError},
    socket::RelaySocket,
    spin::Spin,
};
use crate::transport::{Mechanism, SpinLimit, Tuning};

/// Something that is held as long as a connection lasts, and does its work when it is dropped.
pub(crate) type Guard = Box<dyn Send>;

/// A message to the loop from outside.
pub(crate) enum Incoming {
    /// A client, for which a lane is to be opened.
    Client(RelaySocket, Guard),
    /// The peer has gone: what it has sent is still delivered, then the loop ends.
    PeerGone,
    /// Every connection is reset, and the loop ends.
    Stop,
}

/// A handle that sends messages to the loop.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    incoming: mpsc::Sender<Incoming>,
    waker: Arc<Waker>,
    /// Number of clients that it was given and that have not ended. Orders nothing.
    clients: Arc<AtomicUsize>,
}

/// A guard that counts as one of a relay's clients.
struct Counted {
    _guard: Guard,
    clients: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayOptions {
    pub(super) spin: SpinLimit,
    /// Most answers due with which the loop looks for work before it sleeps.
    spin_answers_max: usize,
    /// Whether the loop and its helpers yield after long writes.
    pauses: bool,
    /// Most helper threads for long writes, each on a core of its own.
    helpers: usize,
    /// Time without traffic after which a connection is reset.
    pub(crate) idle_timeout: Option<Duration>,
}

impl RelayOptions {
    /// Returns the options for a session that may use `cores` cores.
    pub(crate) fn new(tuning: &Tuning, cores: usize) -> Self {
        let has_helpers = cores > 1 && tuning.uses(Mechanism::Helpers);
        Self {
            spin: tuning.spin(),
            spin_answers_max: tuning.spin_answers_max as usize,
            pauses: tuning.uses(Mechanism::Pausing),
            helpers: if has_helpers { cores } else { 0 },
            idle_timeout: None,
        }
    }
}

/// The server to which a plugin's lanes lead.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: Arc<Address>,
    pub(crate) connect_timeout: Duration,
    /// Returns the guard of a new connection; `None` if no new ones are wanted.
    pub(crate) guard: Arc<dyn Fn() -> Option<Guard> + Send + Sync>,
}

/// The present use of a lane.
enum LaneState {
    /// None. On the host, the lane can be opened.
    Free,
    Open(Box<Connection>),
    /// A helper has the connection. Holds the events that came meanwhile.
    Lent(Missed),
    /// This side is done with it, and the peer is not known to be.
    Closing(Box<Lane>),
}

/// The events of a connection that came while a helper had it.
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
    lanes: Vec<LaneState>,
    /// Last generation of each lane that was opened.
    generations: Vec<u64>,
    free: Vec<usize>,
    /// Clients that wait for a lane. The number of guards bounds their number.
    waiting: VecDeque<(RelaySocket, Guard)>,
    connecting: Connecting,
    endings: Endings,
    idle_timeout: Option<Duration>,
    /// When to look for idle connections; `None` while there are no connections.
    next_look: Option<Instant>,
    /// Deadline for delivering what the peer has sent. Set when the peer has gone.
    last_words: Option<Instant>,
    burst: Burst,
    spin: Spin,
    /// The lanes for which an answer is due.
    due: Due,
    helpers: Arc<Helpers>,
    returns: Arc<Returns>,
    /// Number of connections that helpers have.
    lent: usize,
}

const BELL: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// How long it may take to deliver what a peer that has gone had sent.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Most events taken at once. With more, the first ones would wait for the last ones.
const EVENTS: usize = 256;

impl Relay {
    /// Creates a relay for a link, and the loop, which must run on a thread of its own.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(crate) fn new(
        link: Arc<Link>,
        upstream: Option<Upstream>,
        options: RelayOptions,
        helpers: Arc<Helpers>,
    ) -> io::Result<(Self, impl FnOnce() -> Result<(), RelayError> + Send)> {
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
        let event_loop = Loop {
            poll,
            incoming,
            upstream,
            lanes: (0..lanes).map(|_| LaneState::Free).collect(),
            generations: vec![0; lanes],
            // The lowest lanes are used first: the fewer are ever used, the less memory is.
            free: (0..lanes).rev().collect(),
            waiting: VecDeque::new(),
            connecting: Connecting::default(),
            endings: Endings::default(),
            idle_timeout: options.idle_timeout,
            next_look: None,
            last_words: None,
            burst: Burst::new(options.pauses),
            spin: Spin::new(options.spin, &link.counters),
            helpers,
            returns: Returns::new(&waker),
            lent: 0,
            due: Due::new(lanes, options.spin_answers_max),
            link,
        };
        let relay = Self {
            incoming: sender,
            waker,
            clients: Arc::default(),
        };
        Ok((relay, event_loop))
    }

    /// Returns the number of its clients, including those that wait for a lane.
    pub(super) fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    /// Returns a guard that counts its client as one of this relay's.
    pub(super) fn counted(&self, guard: Guard) -> Guard {
        self.clients.fetch_add(1, Relaxed);
        Box::new(Counted {
            _guard: guard,
            clients: self.clients.clone(),
        })
    }

    /// Sends a message to the loop. Does nothing if the loop has ended.
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
    fn run(&mut self) -> Result<(), RelayError> {
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

    /// Waits for the peer or a socket. If the peer has something already, it only polls the
    /// sockets.
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
        let are_few = self.due.are_few(Instant::now);
        let (poll, link) = (&mut self.poll, &self.link);
        let (lent, returns) = (self.lent, &self.returns);
        let found = are_few
            && self.spin.look(|| {
                // An error shows again in the poll that waits.
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

    /// Handles a lane that the peer has marked.
    fn on_peer(&mut self, index: usize) -> Result<(), RelayError> {
        match &mut self.lanes[index] {
            LaneState::Open(connection) => {
                let progress = connection.on_peer()?;
                self.burst.add(connection.take_written());
                self.after(index, progress);
            }
            LaneState::Lent(missed) => missed.peer = true,
            LaneState::Closing(_) => self.recycle(index)?,
            LaneState::Free => {}
        }
        if self.link.side == Side::Plugin && matches!(self.lanes[index], LaneState::Free) {
            self.serve_or_connect(index);
        }
        Ok(())
    }

    fn on_socket(&mut self, index: usize, now: Readiness) -> Result<(), RelayError> {
        match &mut self.lanes[index] {
            LaneState::Open(connection) => {
                let progress = connection.on_socket(now)?;
                self.after(index, progress);
            }
            LaneState::Lent(missed) => {
                missed.socket = Some(missed.socket.unwrap_or_default() | now)
            }
            // The event is late: its connection has ended.
            LaneState::Closing(_) | LaneState::Free => {}
        }
        Ok(())
    }

    fn after(&mut self, index: usize, progress: Progress) {
        match &mut self.lanes[index] {
            LaneState::Open(connection) if progress == Progress::Open => {
                let has_asked = connection.take_asked();
                self.due.set(index, connection.awaits_answer(), has_asked);
                if connection.is_ending() {
                    self.endings.add(index);
                }
            }
            _ => self.due.set(index, false, false),
        }
        if progress == Progress::Open {
            return;
        }
        let LaneState::Open(connection) =
            std::mem::replace(&mut self.lanes[index], LaneState::Free)
        else {
            return;
        };
        if progress != Progress::Done {
            self.link.counters.tunnels_failed.add(1);
        }
        self.link.counters.tunnels_open.subtract(1);
        self.lanes[index] = LaneState::Closing(Box::new(connection.end(progress)));
        // The peer may be done already; if not, it marks the lane when it is.
        if let Err(error) = self.recycle(index) {
            tracing::debug!(%error, "could not recycle a lane");
        }
    }

    /// Frees a lane if the peer is done with it, too.
    fn recycle(&mut self, index: usize) -> Result<(), RelayError> {
        let LaneState::Closing(lane) = &mut self.lanes[index] else {
            return Ok(());
        };
        let done = match self.link.side {
            Side::Host => lane.peer_state() != State::Open,
            // A plugin recycles nothing: it only keeps what the host may still read.
            Side::Plugin => lane.is_done()?,
        };
        if done {
            self.lanes[index] = LaneState::Free;
            if self.link.side == Side::Host {
                self.free.push(index);
                self.open_waiting();
            }
        }
        Ok(())
    }

    /// Handles messages from outside. Returns whether the loop must end.
    fn on_incoming(&mut self) -> Result<bool, RelayError> {
        while let Ok(incoming) = self.incoming.try_recv() {
            match incoming {
                // The client is too late. It is told by closing its connection.
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

    /// Joins a socket to a lane.
    fn connect(&mut self, index: usize, lane: Lane, mut socket: RelaySocket, guard: Guard) {
        self.link.counters.tunnels_opened.add(1);
        self.link.counters.tunnels_open.add(1);
        let registered = socket.register(self.poll.registry(), Token(index));
        let upstream = self.upstream.as_ref().map(|it| it.address.clone());
        let connection = Connection::new(lane, socket, guard, upstream);
        self.lanes[index] = LaneState::Open(Box::new(connection));
        if self.next_look.is_none() {
            self.next_look = self.look_after(Instant::now());
        }
        if let Err(error) = registered {
            tracing::warn!(%error, "could not watch a connection");
            self.after(index, Progress::Failed);
        }
    }
}

/// Tells the peer that a lane will not be used.
pub(super) fn refuse(mut lane: Lane) {
    lane.finish(State::Reset);
}

impl Drop for Loop {
    /// However the loop ends, nobody is left waiting for an answer.
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
