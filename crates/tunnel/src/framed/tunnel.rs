//! One tunnel: a local connection at this end, joined to one at the other.
//!
//! ```text
//!             outbound: read ──► arena ──► frames ──► outbox ──► (writer)
//!  local ◄──►
//!  socket     inbound:  write ◄── straight from the frame, by the receiver
//!                       write ◄── backlog ◄── what the socket did not take at once
//! ```
//!
//! The receiver writes to the socket itself, without a hand-over to another task; only what the
//! socket doesn't take goes to the backlog, which the tunnel's own task writes out when it can.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::{
    arena,
    mux::{Flow, Kind, Sendable, Violation},
    outbox::{Turn, Waiting},
    rapace::{Incoming, Outgoing},
    session::Session,
    socket::{LocalSocket, Sink, Source},
};
use crate::{copy, counters::Counters, local::Idleness};

pub(crate) struct Tunnel {
    number: u32,
    session: Arc<Session>,
    flow: Mutex<Flow>,
    inbound: Mutex<Inbound>,
    /// Wakes who sends on this tunnel: credit, room or a reset has come.
    outbound: Turn,
    /// Wakes who takes from the backlog.
    inbound_waker: AtomicWaker,
    /// Bytes that the local connection has given and taken. Orders nothing.
    moved_bytes: AtomicU64,
}

/// What is at the local connection's other end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Local {
    /// Nobody wants what it had sent before its reset.
    Client {
        /// It is reset when nothing has moved for so long.
        idle_timeout: Option<Duration>,
    },
    /// What it had sent is still delivered.
    Upstream,
}

/// What goes to the local connection.
#[derive(Debug)]
struct Inbound {
    sink: Sink,
    backlog: VecDeque<Bytes>,
    /// No more will arrive; the local connection is to be told once the backlog is empty.
    ended: bool,
}

impl Tunnel {
    pub(super) fn new(number: u32, session: Arc<Session>, flow: Flow) -> Self {
        session.counters().tunnels_opened.add(1);
        session.counters().tunnels_open.add(1);
        let inbound = Inbound {
            sink: Sink::Backlog,
            backlog: VecDeque::new(),
            ended: false,
        };
        Self {
            number,
            session,
            flow: Mutex::new(flow),
            inbound: Mutex::new(inbound),
            outbound: Turn::default(),
            inbound_waker: AtomicWaker::new(),
            moved_bytes: AtomicU64::new(0),
        }
    }

    /// Joins the tunnel to `socket` until both directions have ended or one has failed, or nothing
    /// has moved for too long.
    pub(crate) async fn relay(self: Arc<Self>, socket: LocalSocket, local: Local) {
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
            tokio::select! {
                // The first says whether the second is to be asked.
                biased;
                ended = futures_util::future::try_join(outbound, inbound) => ended.map(drop),
                error = failed_unheard, if is_client => Err(error),
                () = self.until_idle(idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
            }
        };
        self.inbound().sink = Sink::Closed;
        if let Err(error) = ended {
            tracing::debug!(tunnel = self.number, %error, "tunnel failed");
            self.abort();
            sink.reset_on_close();
        }
    }

    /// Until the tunnel is reset. Of one that isn't joined to anything yet.
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

    /// Until nothing has moved for so long, if that is a limit.
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

    /// The frame that tells the peer of this tunnel.
    pub(super) fn opening(&self) -> Outgoing {
        self.frame(Kind::Open, 0, Bytes::new())
    }

    /// An application takes what has arrived, or finds the end. Copies.
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

    /// An application gives bytes to be sent; how many were accepted. Copies.
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

    /// An application is done with the tunnel.
    pub(super) fn leave(&self) {
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

    /// The session has ended, and this tunnel with it.
    pub(super) fn on_session_end(&self) {
        if self.flow().receive_session_end() {
            self.outbound.wake();
        } else {
            self.on_reset();
        }
    }

    /// The peer has given the tunnel up.
    pub(super) fn on_reset(&self) {
        if !self.flow().receive_reset() {
            return;
        }
        self.session.counters().tunnels_failed.add(1);
        self.release();
    }

    /// Delivers payload. Writes what the socket takes, and keeps the rest.
    pub(super) fn on_data(&self, frames: &mut Vec<Incoming>) -> Result<(), Violation> {
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
            true => inbound.sink.try_write(frames.iter().map(Incoming::payload)),
            false => Ok(0),
        };
        match written {
            Ok(written) if written == length => frames.clear(),
            Ok(written) => {
                let mut skip = written;
                for frame in frames.drain(..) {
                    let taken = skip.min(frame.payload().len());
                    skip -= taken;
                    if taken < frame.payload().len() {
                        let mut rest = frame.into_heap(self.session.counters());
                        rest.advance(taken);
                        inbound.keep(rest, self.session.counters());
                    }
                }
            }
            Err(error) => {
                frames.clear();
                drop(inbound);
                tracing::debug!(tunnel = self.number, %error, "local connection failed");
                self.abort();
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

    pub(super) fn on_credit(&self, bytes: u32) -> Result<(), Violation> {
        self.flow().receive_credit(bytes)?;
        self.outbound.wake();
        Ok(())
    }

    pub(super) fn on_end(&self) -> Result<(), Violation> {
        let finished = {
            let mut flow = self.flow();
            flow.receive_end()?;
            flow.is_finished()
        };
        self.inbound().ended = true;
        self.inbound_waker.wake();
        if finished {
            self.session.forget(self.number);
        }
        Ok(())
    }

    /// Local socket to peer. Says whether it reads nothing at the moment, so that it would not find
    /// a failure.
    async fn pump_outbound(
        self: &Arc<Self>,
        source: &mut Source,
        is_deaf: &AtomicBool,
    ) -> io::Result<()> {
        loop {
            let read = |cx: &mut Context<'_>| self.poll_read(cx, source, is_deaf);
            let payload = std::future::poll_fn(read).await?;
            if payload.is_empty() {
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
        // First, so that a reset is noticed while there is nothing to read.
        self.outbound.register(cx.waker());
        match self.flow().sendable() {
            Sendable::Never => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            // As if the local connection had ended: nobody is there to be told more.
            Sendable::Over => return Poll::Ready(Ok(Bytes::new())),
            Sendable::Blocked | Sendable::Bytes(_) => {}
        }
        // Before asking for room, which is for those who would use it.
        ready!(source.poll_read_ready(cx))?;
        let sendable = self.poll_sendable(cx)?;
        is_deaf.store(sendable.is_pending(), Relaxed);
        let allowance = ready!(sendable);
        arena::with(|arena| {
            let mut room = arena.room(allowance.min(READ_BYTES_MAX));
            ready!(tokio_util::io::poll_read_buf(
                Pin::new(source),
                cx,
                &mut room
            ))?;
            Poll::Ready(Ok(arena.split()))
        })
    }

    /// How many bytes may be sent now, at least one.
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

    /// Peer to local socket, as far as the receiver has left it undone.
    fn poll_inbound(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inbound_waker.register(cx.waker());
        loop {
            if self.flow().is_reset() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let mut inbound = self.inbound();
            if inbound.backlog.is_empty() {
                if !inbound.ended {
                    return Poll::Pending;
                }
                inbound.sink.shut_down();
                return Poll::Ready(Ok(()));
            }
            ready!(inbound.sink.poll_write_ready(cx))?;
            let Inbound { sink, backlog, .. } = &mut *inbound;
            let written = sink.try_write(backlog.iter().map(Bytes::as_ref))?;
            inbound.consume(written);
            drop(inbound);
            self.taken(written);
        }
    }

    /// Sends payload that is covered by credit, in as many frames as it takes.
    fn send(&self, mut payload: Bytes) {
        let length = payload.len();
        {
            let mut flow = self.flow();
            // Reset since the credit was asked for: nobody wants it.
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
        let credit = self
            .flow()
            .take(u32::try_from(bytes).expect("bounded by the window"));
        if let Some(credit) = credit {
            self.push(Kind::Credit, credit, Bytes::new());
        }
    }

    /// Drops what waits, and lets everybody who waits find out.
    fn release(&self) {
        self.inbound().backlog.clear();
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

/// A piece that is shorter is put behind the one before, if that isn't long yet: each piece takes
/// memory of its own, and a window of single bytes would be many of them.
const SHORT_BYTES: usize = 512;
const JOINED_BYTES_MAX: usize = 8192;

impl Inbound {
    fn keep(&mut self, piece: Bytes, counters: &Counters) {
        let is_short = piece.len() < SHORT_BYTES;
        match self.backlog.pop_back() {
            Some(last) if is_short && last.len() + piece.len() <= JOINED_BYTES_MAX => {
                let mut last = last.try_into_mut().unwrap_or_else(BytesMut::from);
                last.reserve(piece.len());
                copy::append(counters, &mut last, &piece);
                self.backlog.push_back(last.freeze());
            }
            last => self.backlog.extend(last.into_iter().chain([piece])),
        }
    }

    fn consume(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let first = self
                .backlog
                .front_mut()
                .expect("no more is consumed than there is");
            let taken = bytes.min(first.len());
            first.advance(taken);
            bytes -= taken;
            if first.is_empty() {
                self.backlog.pop_front();
            }
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_pieces_are_kept_in_few() {
        let counters = Counters::default();
        let mut inbound = Inbound {
            sink: Sink::Backlog,
            backlog: VecDeque::new(),
            ended: false,
        };
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (bytes, blocks) = sent.split_at(50_000);
        for byte in bytes {
            inbound.keep(Bytes::copy_from_slice(&[*byte]), &counters);
            // Now and then something is taken.
            if *byte == 3 {
                inbound.consume(1);
            }
        }
        let taken = bytes.iter().filter(|byte| **byte == 3).count();
        assert!(inbound.backlog.len() <= 50_000 / (JOINED_BYTES_MAX / 2) + 1);
        for block in blocks.chunks(SHORT_BYTES) {
            inbound.keep(Bytes::copy_from_slice(block), &counters);
        }
        let kept: Vec<u8> = inbound.backlog.iter().flatten().copied().collect();
        assert_eq!(kept, sent[taken..]);
    }
}
