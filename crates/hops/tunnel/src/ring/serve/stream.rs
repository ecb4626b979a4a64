//! A lane as a byte stream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use shm_ring::Violation;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};

use super::Dispatch;
use crate::ring::lane::{Lane, State, TURN_CALLS};

/// A lane that its task and the dispatcher share.
#[derive(Debug)]
pub(super) struct SharedLane(Mutex<Shared>);

#[derive(Debug)]
struct Shared {
    lane: Lane,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whether the peer has reset the lane, or the session is over.
    aborted: bool,
    /// Whether the peer's end was received.
    read_ended: bool,
    /// Whether this side's end was sent.
    write_ended: bool,
    /// Whether the stream is gone, as after close(2). What was written is still delivered.
    dropped: bool,
    /// Whether this side is done with the lane, and only keeps what the peer may still read.
    finished: bool,
}

/// A connection of an application in this process. Dropping it is like closing a socket: what was
/// written is still delivered, and the peer gets a reset only for data that nobody will read.
#[derive(Debug)]
pub(crate) struct LaneStream {
    shared: Arc<SharedLane>,
    dispatch: Arc<Dispatch>,
}

impl SharedLane {
    pub(super) fn new(lane: Lane) -> Self {
        Self(Mutex::new(Shared {
            lane,
            reader: None,
            writer: None,
            aborted: false,
            read_ended: false,
            write_ended: false,
            dropped: false,
            finished: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on after a mark of the peer's: it has sent something, made room, or ended. Returns
    /// whether the lane can be forgotten.
    pub(super) fn on_peer(&self) -> Result<bool, Violation> {
        let mut shared = self.lock();
        if shared.lane.peer_state() == State::Reset {
            shared.abort();
        }
        if shared.dropped {
            shared.wind_up()?;
            return Ok(shared.finished && shared.lane.is_done()?);
        }
        let wakers = [shared.reader.take(), shared.writer.take()];
        drop(shared);
        wakers.into_iter().flatten().for_each(Waker::wake);
        Ok(false)
    }

    pub(super) fn on_session_end(&self) {
        let mut shared = self.lock();
        shared.abort();
        let wakers = [shared.reader.take(), shared.writer.take()];
        drop(shared);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Shared {
    /// Records that nothing more is read or sent.
    fn abort(&mut self) {
        if !self.aborted && !self.finished {
            self.lane.counters().tunnels_failed.add(1);
        }
        self.aborted = true;
    }

    /// Ends this side of a lane whose stream is gone, as soon as that loses nothing.
    fn wind_up(&mut self) -> Result<(), Violation> {
        if self.finished {
            return Ok(());
        }
        let state = if self.aborted {
            State::Reset
        } else if self.read_ended || self.discard()? {
            State::Closed
        } else {
            return Ok(());
        };
        self.finished = true;
        self.lane.finish(state);
        Ok(())
    }

    /// Throws away what has been received. Returns whether the peer's end was in it. A peer that
    /// has read everything, and sends more to nobody, gets a reset.
    fn discard(&mut self) -> Result<bool, Violation> {
        let mut anything = false;
        let mut calls = 0;
        loop {
            match self.lane.copy_to(&mut [0; 4096])? {
                None => return Ok(true),
                Some(0) => break,
                Some(_) => anything = true,
            }
            calls += 1;
            if calls == TURN_CALLS {
                self.lane.look_again();
                break;
            }
        }
        if anything && self.lane.is_drained()? {
            self.abort();
            self.finished = true;
            self.lane.finish(State::Reset);
        }
        Ok(false)
    }
}

impl LaneStream {
    pub(super) fn new(shared: Arc<SharedLane>, dispatch: Arc<Dispatch>) -> Self {
        Self { shared, dispatch }
    }

    /// Makes an error of a violation, which ends the session and not only this connection.
    fn checked<T>(&self, result: Result<T, Violation>) -> io::Result<T> {
        result.map_err(|violation| {
            let error = io::Error::new(io::ErrorKind::InvalidData, violation);
            self.dispatch.accuse(violation);
            error
        })
    }
}

impl AsyncRead for LaneStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // As with a socket of tokio's, a task that finds something each time lets other tasks run.
        let turn = ready!(coop::poll_proceed(cx));
        let mut shared = self.shared.lock();
        if shared.aborted {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if shared.read_ended || target.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // Only as much as there is has to be initialised.
        let waiting = self.checked(shared.lane.waiting_bytes())?;
        let room = target.remaining().min(waiting.max(1));
        let into = target.initialize_unfilled_to(room);
        let copied = self.checked(shared.lane.copy_to(into))?;
        // The peer may have waited for the room that there is now.
        if shared.lane.is_unrung() {
            self.dispatch.announce();
        }
        match copied {
            Some(0) => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(count) => {
                turn.made_progress();
                target.advance(count);
                Poll::Ready(Ok(()))
            }
            None => {
                shared.read_ended = true;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for LaneStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let turn = ready!(coop::poll_proceed(cx));
        let mut shared = self.shared.lock();
        if shared.aborted || shared.write_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let sent = self.checked(shared.lane.send(slices))?;
        if sent == 0 {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(shared);
        turn.made_progress();
        self.dispatch.announce();
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.lock();
        if !shared.write_ended && !shared.aborted {
            shared.write_ended = true;
            shared.lane.send_end();
            drop(shared);
            self.dispatch.announce();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for LaneStream {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.dropped = true;
        if !shared.write_ended && !shared.aborted {
            shared.write_ended = true;
            shared.lane.send_end();
        }
        let wound_up = shared.wind_up();
        drop(shared);
        if let Err(violation) = wound_up {
            self.dispatch.accuse(violation);
        }
        self.dispatch.counters.tunnels_open.subtract(1);
        self.dispatch.announce();
    }
}
