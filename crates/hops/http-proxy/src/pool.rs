//! A worker's connections to upstreams, and those that wait for the next request.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    pin::Pin,
    rc::{Rc, Weak},
    sync::{
        self, Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::spawn_local,
    time::{Instant, interval},
};

use crate::{
    body::RequestBody, counters::ProxyCounters, deadline::Deadline, plain::PlainConnection,
    tap::Tap, upstream::Target, write::poll_pieces,
};

/// Connections of one worker that wait for a request, the last used one on top.
#[derive(Debug)]
pub struct Pool {
    /// By the number of the target. There is an entry for each target that was connected to.
    idle: RefCell<HashMap<u64, Waiting>>,
    limits: PoolLimits,
    pub(crate) counters: Arc<ProxyCounters>,
}

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Most connections to one target that wait, per worker.
    pub idle_max: usize,
    /// How long a connection may wait.
    pub idle_time: Duration,
    /// Largest buffer for reading from an upstream, in bytes. Each connection may have two at a
    /// time: one that is being written to the client, and the next.
    pub buffer_bytes: usize,
    /// Whether each answer gets a [`RawHead`](crate::RawHead).
    pub keeps_heads: bool,
}

/// The waiting connections to a target.
#[derive(Debug)]
struct Waiting {
    /// Gone once no configuration has the target any more.
    target: sync::Weak<Target>,
    idle: Vec<Idle<Connection>>,
    /// Those that carry plain requests.
    idle_plain: Vec<Idle<PlainConnection>>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: Box<C>,
    since: Instant,
}

/// A connection to an upstream. Whoever has it drives it: it has no task of its own, so that a
/// request costs no switch between tasks.
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Socket>, RequestBody>,
    is_done: bool,
    /// Whether anything has been received since the last request was sent.
    has_received: Arc<AtomicBool>,
    pub(crate) tap: Option<Tap>,
    /// Whether it has carried a request before.
    pub(crate) is_reused: bool,
    pub(crate) deadline: Deadline,
    _open: Open,
}

/// Counts as an open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<ProxyCounters>);

/// A socket that notes whether it has received anything.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    has_received: Arc<AtomicBool>,
    tap: Option<Tap>,
}

/// A connection that answers a request. It goes back to the pool if it can take another.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Box<Connection>,
    pub(crate) pool: Rc<Pool>,
    target: u64,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) struct SendFailure {
    pub(crate) error: hyper::Error,
    /// The request, if nothing of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
}

/// Interval at which connections that have waited for too long are closed.
const SWEEP: Duration = Duration::from_secs(1);

/// Most fields in the head of an answer.
const FIELDS_MAX: usize = 100;

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle_max: 1024,
            idle_time: Duration::from_secs(55),
            buffer_bytes: 32 * 1024,
            keeps_heads: false,
        }
    }
}

impl Pool {
    /// Makes a pool for the current thread, and a task that closes what waits for too long.
    pub fn start(limits: PoolLimits, counters: Arc<ProxyCounters>) -> Rc<Self> {
        let pool = Rc::new(Self {
            idle: RefCell::default(),
            limits,
            counters,
        });
        spawn_local(sweep(Rc::downgrade(&pool)));
        pool
    }

    /// Takes a connection that waits and still works.
    pub(crate) fn take(self: &Rc<Self>, target: &Target) -> Option<Lease> {
        loop {
            let mut waiting = self.idle.borrow_mut();
            let mut connection = waiting.get_mut(&target.id)?.idle.pop()?.connection;
            drop(waiting);
            if connection.is_idle() {
                self.counters.upstream_reused.add(1);
                return Some(self.lease(connection, target));
            }
        }
    }

    /// Opens a connection.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        target: &Arc<Target>,
        at_most: Duration,
    ) -> io::Result<Lease> {
        let stream = target.connect(at_most).await?;
        let connection = Connection::open(stream, self).await?;
        self.expect(target);
        Ok(self.lease(Box::new(connection), target))
    }

    /// Makes room for the waiting connections to a target.
    fn expect(&self, target: &Arc<Target>) {
        let mut waiting = self.idle.borrow_mut();
        waiting.entry(target.id).or_insert_with(|| Waiting {
            target: Arc::downgrade(target),
            idle: Vec::new(),
            idle_plain: Vec::new(),
        });
    }

    /// Takes a connection for plain requests that waits and still works.
    pub(crate) fn take_plain(&self, target: &Target) -> Option<Box<PlainConnection>> {
        let mut waiting = self.idle.borrow_mut();
        let idle = &mut waiting.get_mut(&target.id)?.idle_plain;
        loop {
            let mut connection = idle.pop()?.connection;
            if connection.is_idle() {
                self.counters.upstream_reused.add(1);
                return Some(connection);
            }
        }
    }

    /// Opens a connection for plain requests.
    pub(crate) async fn connect_plain(
        &self,
        target: &Arc<Target>,
        at_most: Duration,
    ) -> io::Result<Box<PlainConnection>> {
        let stream = target.connect(at_most).await?;
        self.expect(target);
        let open = Open::count(&self.counters);
        Ok(Box::new(PlainConnection::new(stream, target.id, open)))
    }

    /// Puts a connection for plain requests back.
    pub(crate) fn put_plain(&self, mut connection: Box<PlainConnection>) {
        let mut waiting = self.idle.borrow_mut();
        // Or else no configuration has the target any more.
        if let Some(Waiting { idle_plain, .. }) = waiting.get_mut(&connection.target)
            && idle_plain.len() < self.limits.idle_max
        {
            connection.is_reused = true;
            connection.deadline.clear();
            let since = Instant::now();
            idle_plain.push(Idle { connection, since });
        }
    }

    fn lease(self: &Rc<Self>, connection: Box<Connection>, target: &Target) -> Lease {
        Lease {
            connection,
            pool: Rc::clone(self),
            target: target.id,
        }
    }

    /// Puts a connection back. Whether it can take another request shows when it is taken.
    fn put(&self, mut connection: Box<Connection>, target: u64) {
        let mut waiting = self.idle.borrow_mut();
        let Some(Waiting { idle, .. }) = waiting.get_mut(&target) else {
            // No configuration has the target any more.
            return;
        };
        if !connection.is_done && idle.len() < self.limits.idle_max {
            connection.is_reused = true;
            connection.deadline.clear();
            let since = Instant::now();
            idle.push(Idle { connection, since });
        }
    }

    /// Closes the connections to targets that no configuration has any more.
    pub fn close_orphans(&self) {
        let mut waiting = self.idle.borrow_mut();
        waiting.retain(|_, waiting| waiting.target.strong_count() > 0);
    }

    /// Closes the connections that have waited for too long, and those that the upstream closed.
    fn close_stale(&self) {
        self.close_orphans();
        for waiting in self.idle.borrow_mut().values_mut() {
            let is_fresh = |since: Instant| since.elapsed() < self.limits.idle_time;
            let idle = &mut waiting.idle;
            idle.retain_mut(|idle| is_fresh(idle.since) && idle.connection.is_idle());
            let idle = &mut waiting.idle_plain;
            idle.retain_mut(|idle| is_fresh(idle.since) && idle.connection.is_idle());
        }
    }
}

/// Closes stale connections until the pool is gone.
async fn sweep(pool: Weak<Pool>) {
    let mut sweeps = interval(SWEEP);
    loop {
        sweeps.tick().await;
        match pool.upgrade() {
            Some(pool) => pool.close_stale(),
            None => return,
        }
    }
}

impl Lease {
    /// Gives the connection back.
    pub(crate) fn release(self) {
        self.pool.put(self.connection, self.target);
    }

    /// Takes the socket of a connection that no longer speaks HTTP, and what was read too much.
    pub(crate) fn into_stream(self) -> (TcpStream, bytes::Bytes) {
        let parts = self.connection.driver.into_parts();
        (parts.io.into_inner().stream, parts.read_buf)
    }
}

impl Connection {
    async fn open(stream: TcpStream, pool: &Pool) -> io::Result<Self> {
        let has_received = Arc::new(AtomicBool::new(false));
        let tap = pool.limits.keeps_heads.then(Tap::default);
        let socket = Socket {
            stream,
            has_received: Arc::clone(&has_received),
            tap: tap.clone(),
        };
        let handshake = http1::Builder::new()
            .max_buf_size(pool.limits.buffer_bytes)
            .max_headers(FIELDS_MAX)
            .handshake(TokioIo::new(socket));
        let (sender, driver) = handshake.await.map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver,
            is_done: false,
            has_received,
            tap,
            is_reused: false,
            deadline: Deadline::default(),
            _open: Open::count(&pool.counters),
        })
    }

    /// Returns whether it can take a request.
    fn is_idle(&mut self) -> bool {
        // Nobody waits for it, so nobody is to be woken.
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.is_done && self.sender.is_ready()
    }

    /// Reads and writes what can be. Returns whether the connection has ended.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) -> bool {
        if !self.is_done
            && let Poll::Ready(end) = Pin::new(&mut self.driver).poll(context)
        {
            self.is_done = true;
            if let Err(error) = end {
                tracing::debug!("a connection to an upstream failed: {error}");
            }
        }
        self.is_done
    }

    /// Returns whether anything of an answer has been received.
    pub(crate) fn has_received(&self) -> bool {
        self.has_received.load(Relaxed)
    }

    /// Begins to send a request. Whoever waits for the answer must drive the connection.
    pub(crate) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendFailure>> + use<> {
        self.has_received.store(false, Relaxed);
        if let Some(tap) = &self.tap {
            tap.begin();
        }
        let sent = self.sender.try_send_request(request);
        async {
            sent.await.map_err(|mut failed| SendFailure {
                unsent: failed.take_message(),
                error: failed.into_error(),
            })
        }
    }
}

impl Open {
    fn count(counters: &Arc<ProxyCounters>) -> Self {
        counters.upstream_opened.add(1);
        counters.upstream_open.add(1);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.upstream_open.subtract(1);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut connection = f.debug_struct("Connection");
        let connection = connection.field("is_done", &self.is_done);
        connection
            .field("is_reused", &self.is_reused)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.has_received.store(true, Relaxed);
        }
        if let Some(tap) = &self.tap {
            tap.note(&buffer.filled()[before..]);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_pieces(Pin::new(&mut self.stream), context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
