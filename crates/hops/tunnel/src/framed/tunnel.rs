//! One tunnel: a local connection at this end, joined to one at the other.
//!
//! ```text
//!             outbound: read ──► arena ──► frames ──► outbox ──► (writer)
//!  local ◄──►
//!  socket     inbound:  write ◄── straight from the frame, by the receiver
//!                       write ◄── backlog ◄── what the socket did not take at once
//! ```
//!
//! The receiver writes to the socket itself, without a hand-over to another task. Only what the
//! socket doesn't take goes to the backlog, which the tunnel's own task writes out when it can.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use tokio::io::ReadBuf;

use super::{
    arena,
    inbound::Inbound,
    mux::{Flow, FrameViolation, Kind, Role, Sendable},
    outbox::{Turn, Waiting},
    rapace::{IncomingFrame, Outgoing},
    session::Session,
    socket::{Registered, Sink, Source},
};
use crate::{copy, local::Idleness};

pub(crate) struct Tunnel {
    number: u32,
    session: Arc<Session>,
    flow: Mutex<Flow>,
    inbound: Mutex<Inbound>,
    /// Wakes the sender of this tunnel when credit, room or a reset has come.
    outbound: Turn,
    /// Wakes whoever takes from the backlog.
    inbound_waker: AtomicWaker,
    /// Number of bytes that the local connection has given and taken. Orders nothing.
    moved_bytes: AtomicU64,
}

/// The program at the local connection's other end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Local {
    /// A client. If it resets its connection, nobody wants what it had sent before. It is reset
    /// when the tunnel is.
    Client {
        /// Time without traffic after which it is reset.
        idle_timeout: Option<Duration>,
    },
    /// An upstream. What it had sent is still delivered, whatever happens to it.
    Upstream,
}

impl Tunnel {
    pub(super) fn new(number: u32, session: Arc<Session>, flow: Flow) -> Self {
        session.counters().tunnels_opened.add(1);
        session.counters().tunnels_open.add(1);
        Self {
            number,
            session,
            flow: Mutex::new(flow),
            inbound: Mutex::new(Inbound::new()),
            outbound: Turn::default(),
            inbound_waker: AtomicWaker::new(),
            moved_bytes: AtomicU64::new(0),
        }
    }

    /// Joins the tunnel to `socket` until both directions have ended or one has failed, or nothing
    /// has moved for too long.
    pub(crate) async fn relay(self: Arc<Self>, socket: Registered, local: Local) {
        let (mut source, sink) = socket.split();
        self.inbound().sink = sink.clone();
        let ended = {
            let is_deaf = AtomicBool::new(false);
            let outbound = self.pump_outbound(&mut source, &is_deaf);
            let inbound = std::future::poll_fn(|cx| self.poll_inbound(cx));
            let mut failure = pin!(sink.failure());
            let failed_unheard = std::future::poll_fn(|cx| match is_deaf.load(Relaxed) {
                true => failure.as_mut().poll(cx),
                false => Poll::Pending,
            });
            let (is_client, idle_timeout) = match local {
                Local::Client { idle_timeout } => (true, idle_timeout),
                Local::Upstream => (false, None),
            };
            let both = async {
                futures_util::future::try_join(outbound, inbound).await?;
                self.last_words(&sink).await
            };
            tokio::select! {
                // The first future decides whether the second is polled.
                biased;
                ended = both => ended,
                error = failed_unheard, if is_client => Err(error),
                () = self.until_idle(idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        self.inbound().sink = Sink::Closed;
        self.session.leave_outbox(&self);
        if let Err(error) = ended {
            tracing::debug!(tunnel = self.number, %error, "tunnel failed");
            self.abort();
            sink.reset_on_close();
        }
    }

    /// Does what is left once both directions are over. Returns an error if the end is no orderly
    /// one.
    async fn last_words(&self, sink: &Sink) -> io::Result<()> {
        if self.flow().is_delivering() {
            sink.until_arrived().await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match self.inbound().sink {
            Sink::Failed(kind) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Waits until the tunnel is reset. Only for a tunnel that isn't joined to anything yet.
    pub(crate) async fn until_reset(&self) {
        std::future::poll_fn(|cx| {
            self.inbound_waker.register(cx.waker());
            match self.flow().is_reset() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Waits until nothing has moved for `limit`; without a limit, forever.
    async fn until_idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        let (mut idleness, mut before) = (Idleness::default(), 0);
        loop {
            tokio::time::sleep(Idleness::look_interval(limit)).await;
            let now = self.moved_bytes.load(Relaxed);
            if idleness.look(std::mem::replace(&mut before, now) != now) {
                return;
            }
        }
    }

    /// Returns the frame that tells the peer of this tunnel.
    pub(super) fn opening(&self) -> Outgoing {
        self.frame(Kind::Open, 0, Bytes::new())
    }

    /// Copies what has arrived to an application, or tells it of the end.
    pub(super) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inbound_waker.register(cx.waker());
        if self.flow().is_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut inbound = self.inbound();
        let read = match inbound.backlog.front() {
            Some(first) => copy::to_reader(self.session.counters(), target, first),
            None if inbound.ended => return Poll::Ready(Ok(())),
            None => return Poll::Pending,
        };
        inbound.consume(read);
        drop(inbound);
        self.taken(read);
        Poll::Ready(Ok(()))
    }

    /// Copies bytes of an application, to be sent. Returns how many were accepted.
    pub(super) fn poll_give(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let allowance = ready!(self.poll_sendable(cx))?.min(READ_BYTES_MAX);
        let payload = arena::with(|arena| {
            let mut room = arena.room(allowance);
            for slice in slices {
                let length = slice.len().min(room.limit());
                let free = room.limit() - length;
                copy::append(self.session.counters(), room.get_mut(), &slice[..length]);
                room.set_limit(free);
            }
            arena.split()
        });
        let length = payload.len();
        self.send(payload);
        Poll::Ready(Ok(length))
    }

    /// Ends the tunnel of an application that is done with it.
    pub(super) fn leave(&self) {
        self.session.leave_outbox(self);
        self.send_end();
        let unread = {
            let mut inbound = self.inbound();
            inbound.sink = Sink::Closed;
            !inbound.backlog.is_empty()
        };
        if unread {
            self.abort();
        }
    }

    /// Gives the tunnel up: nothing more is sent or delivered, the peer is told, and the local
    /// connection is reset.
    pub(crate) fn abort(&self) {
        if self.flow().send_reset() {
            self.session.counters().tunnels_failed.add(1);
            self.push(Kind::Reset, 0, Bytes::new());
        }
        self.release();
    }

    /// Ends the tunnel because its session has ended.
    pub(super) fn on_session_end(&self) {
        if self.flow().receive_session_end() {
            self.outbound.wake();
        } else if self.flow().receive_reset(false) {
            self.session.counters().tunnels_failed.add(1);
            self.release();
        }
    }

    /// Handles a reset of the peer's. What an upstream had sent before is still delivered: a server
    /// that closes with data unread may have answered. What a client had sent is not, because an
    /// upstream that doesn't read would hold on to it.
    pub(super) fn on_reset(&self) {
        let deliver = self.session.role() == Role::Opener;
        if !self.flow().receive_reset(deliver) {
            return;
        }
        self.session.counters().tunnels_failed.add(1);
        match deliver {
            true => self.leave_session(),
            false => self.release(),
        }
    }

    /// Delivers payload. Writes what the socket takes, and keeps the rest.
    pub(super) fn on_data(&self, frames: &mut Vec<IncomingFrame>) -> Result<(), FrameViolation> {
        let length: usize = frames.iter().map(|frame| frame.payload().len()).sum();
        let wanted = {
            let bytes = u32::try_from(length).unwrap_or(u32::MAX);
            self.flow().receive(bytes)?
        };
        if !wanted {
            frames.clear();
            return Ok(());
        }
        let mut inbound = self.inbound();
        let written = match inbound.backlog.is_empty() {
            true => inbound
                .sink
                .try_write(frames.iter().map(IncomingFrame::payload)),
            false => Ok(0),
        };
        match written {
            Ok(written) if written == length => frames.clear(),
            Ok(written) => inbound.keep_rest(frames, written, self.session.counters()),
            Err(error) => {
                frames.clear();
                tracing::debug!(tunnel = self.number, %error, "local connection failed");
                if self.has_upstream(&inbound) {
                    let left = inbound.fail(error.kind());
                    drop(inbound);
                    self.discarded(left + length);
                    self.inbound_waker.wake();
                } else {
                    drop(inbound);
                    self.abort();
                }
                return Ok(());
            }
        }
        drop(inbound);
        if let Ok(written) = written {
            if written < length {
                self.inbound_waker.wake();
            }
            self.taken(written);
        }
        Ok(())
    }

    pub(super) fn on_credit(&self, bytes: u32) -> Result<(), FrameViolation> {
        self.flow().receive_credit(bytes)?;
        self.outbound.wake();
        Ok(())
    }

    pub(super) fn on_end(&self) -> Result<(), FrameViolation> {
        let finished = {
            let mut flow = self.flow();
            flow.receive_end()?;
            flow.is_finished()
        };
        {
            let mut inbound = self.inbound();
            inbound.ended = true;
            // Told at once, like data: a client that sends a request before it knows of the end
            // gets no answer.
            inbound.tell_end();
        }
        self.inbound_waker.wake();
        if finished {
            self.session.forget(self.number);
        }
        Ok(())
    }

    /// Carries bytes from the local socket to the peer. Sets `is_deaf` while it reads nothing, and
    /// would thus not find a failure.
    async fn pump_outbound(
        self: &Arc<Self>,
        source: &mut Source,
        is_deaf: &AtomicBool,
    ) -> io::Result<()> {
        loop {
            let read = |cx: &mut Context<'_>| self.poll_read(cx, source, is_deaf);
            let payload = std::future::poll_fn(read).await?;
            if payload.is_empty() {
                // The kernel has reported the reset to the failed write, and not to the read.
                if let Sink::Failed(kind) = self.inbound().sink
                    && kind != io::ErrorKind::BrokenPipe
                {
                    return Err(kind.into());
                }
                self.send_end();
                is_deaf.store(true, Relaxed);
                return Ok(());
            }
            self.send(payload);
        }
    }

    /// Reads once, when there is something to read and it may be sent.
    fn poll_read(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        source: &mut Source,
        is_deaf: &AtomicBool,
    ) -> Poll<io::Result<Bytes>> {
        loop {
            // Registered first, so that a reset is noticed while there is nothing to read.
            self.outbound.register(cx.waker());
            match self.flow().sendable() {
                Sendable::Never => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                // Act as if the local connection had ended: nobody is left to send more to.
                Sendable::Over => return Poll::Ready(Ok(Bytes::new())),
                Sendable::Blocked | Sendable::Bytes(_) => {}
            }
            // This comes before asking for room, which is for tunnels that would use it.
            ready!(source.poll_read_ready(cx))?;
            let sendable = self.poll_sendable(cx);
            is_deaf.store(sendable.is_pending(), Relaxed);
            let allowance = match ready!(sendable) {
                // The tunnel is over since: the head of the loop handles that.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => continue,
                allowance => allowance?,
            };
            let read = arena::with(|arena| {
                let mut room = arena.room(allowance.min(READ_BYTES_MAX));
                let read = source.try_read(&mut room)?;
                io::Result::Ok(read.map(|_| arena.split()))
            })?;
            if let Some(payload) = read {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    /// Waits until bytes may be sent. Returns how many, at least one.
    fn poll_sendable(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.outbound.register(cx.waker());
        match self.flow().sendable() {
            Sendable::Never => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Sendable::Over => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Sendable::Blocked => Poll::Pending,
            Sendable::Bytes(_) if !self.session.has_room(self) => Poll::Pending,
            Sendable::Bytes(bytes) => Poll::Ready(Ok(bytes as usize)),
        }
    }

    /// Carries bytes from the backlog to the local socket: those that the receiver could not write.
    fn poll_inbound(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inbound_waker.register(cx.waker());
        loop {
            let (is_reset, is_delivering) = {
                let flow = self.flow();
                (flow.is_reset(), flow.is_delivering())
            };
            if is_reset && !is_delivering {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let mut inbound = self.inbound();
            if let Sink::Failed(_) = inbound.sink {
                return Poll::Ready(Ok(()));
            }
            if inbound.backlog.is_empty() {
                inbound.tell_end();
                return match inbound.ended || is_delivering {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                };
            }
            ready!(inbound.sink.poll_write_ready(cx))?;
            let Inbound { sink, backlog, .. } = &mut *inbound;
            match sink.try_write(backlog.iter().map(Bytes::as_ref)) {
                Ok(written) => {
                    inbound.consume(written);
                    drop(inbound);
                    self.taken(written);
                }
                Err(error) if self.has_upstream(&inbound) => {
                    let left = inbound.fail(error.kind());
                    drop(inbound);
                    self.discarded(left);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Returns whether the local connection leads to an upstream. An upstream is read to its end
    /// even after a write to it has failed, since it may have answered before.
    fn has_upstream(&self, inbound: &Inbound) -> bool {
        let is_joined = matches!(inbound.sink, Sink::Socket(_) | Sink::Failed(_));
        self.session.role() == Role::Acceptor && is_joined
    }

    /// Sends payload that is covered by credit, in as many frames as it takes.
    fn send(&self, mut payload: Bytes) {
        let length = payload.len();
        {
            let mut flow = self.flow();
            // The tunnel was reset since the credit was asked for: nobody wants the payload.
            if flow.is_reset() {
                return;
            }
            flow.send(u32::try_from(length).expect("bounded by credit"));
        }
        self.moved_bytes.fetch_add(length as u64, Relaxed);
        self.session.counters().bytes_in.add(length);
        let frame_bytes = self.session.frame_bytes();
        self.session.push(std::iter::from_fn(|| {
            let piece = payload.split_to(payload.len().min(frame_bytes));
            (!piece.is_empty()).then(|| self.frame(Kind::Data, 0, piece))
        }));
    }

    pub(super) fn send_end(&self) {
        let (tell, finished) = {
            let mut flow = self.flow();
            (flow.send_end(), flow.is_finished())
        };
        if tell {
            self.push(Kind::End, 0, Bytes::new());
        }
        if finished {
            self.session.forget(self.number);
        }
    }

    /// Counts bytes that the local connection has taken, and gives the peer its credit back.
    fn taken(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.moved_bytes.fetch_add(bytes as u64, Relaxed);
        self.session.counters().bytes_out.add(bytes);
        self.discarded(bytes);
    }

    /// Gives the peer credit for bytes that no longer wait.
    fn discarded(&self, bytes: usize) {
        let credit = self
            .flow()
            .take(u32::try_from(bytes).expect("bounded by the window"));
        if let Some(credit) = credit {
            self.push(Kind::Credit, credit, Bytes::new());
        }
    }

    /// Drops the backlog, and wakes everybody who waits on this tunnel.
    fn release(&self) {
        self.inbound().backlog.clear();
        self.leave_session();
    }

    /// Takes the tunnel out of its session, and wakes everybody who waits on it: nothing more will
    /// come.
    fn leave_session(&self) {
        self.session.forget(self.number);
        self.outbound.wake();
        self.inbound_waker.wake();
    }

    fn push(&self, kind: Kind, value: u32, payload: Bytes) {
        self.session.push([self.frame(kind, value, payload)]);
    }

    fn frame(&self, kind: Kind, value: u32, payload: Bytes) -> Outgoing {
        Outgoing {
            kind,
            tunnel: self.number,
            value,
            payload,
        }
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().expect("no panic while counting")
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().expect("no panic while delivering")
    }
}

/// Longest read from a local socket, in bytes. More would only fill the outbox in one go.
const READ_BYTES_MAX: usize = 128 * 1024;

impl Waiting for Tunnel {
    fn turn(&self) -> &Turn {
        &self.outbound
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.session.counters().tunnels_open.subtract(1);
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
