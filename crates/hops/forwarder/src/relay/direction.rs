//! One direction of a connection.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::{Carry, Shared, Socket, pipes::Pipe};

/// One direction of a connection: what it has carried, and what it holds.
#[derive(Debug)]
pub(super) struct Direction {
    held: Held,
    state: State,
    pace: Pace,
    pub(super) carried: usize,
    /// Bytes of these that went through a pipe.
    pub(super) spliced: usize,
    pub(super) pipes_missing: usize,
}

/// Bytes that were read and not written yet.
#[derive(Debug)]
enum Held {
    Nothing,
    /// Bytes from `at` on.
    Bytes {
        bytes: Vec<u8>,
        at: usize,
    },
    Pipe(Pipe),
}

#[derive(Debug)]
enum State {
    Open,
    /// The reader has reached its end, which is passed on when nothing is held any more.
    AtEnd,
    /// The end was passed on.
    Closed,
    /// The writer takes no more.
    Failed(io::ErrorKind),
}

/// Whether bytes are copied or spliced, and what speaks for a change.
#[derive(Debug)]
struct Pace {
    is_splicing: bool,
    may_change: bool,
    /// Reads in a row that speak for a change.
    streak: u32,
}

/// Most reads in a row before other connections of the worker get their turn.
const READS_MAX: usize = 16;

/// Full reads in a row after which bytes are spliced.
const FULL_READS: u32 = 16;

/// Bytes below which it would have been better to copy.
const SMALL_BYTES: usize = 16 * 1024;

/// Such reads in a row after which bytes are copied again.
const SMALL_READS: u32 = 4;

impl Direction {
    pub(super) fn new(carry: Carry) -> Self {
        Self {
            held: Held::Nothing,
            state: State::Open,
            pace: Pace::new(carry),
            carried: 0,
            spliced: 0,
            pipes_missing: 0,
        }
    }

    /// Returns whether nothing will be carried any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Closed | State::Failed(_))
    }

    /// Returns why the writer takes no more, if that is so.
    pub(super) fn failure(&self) -> Option<io::ErrorKind> {
        match self.state {
            State::Failed(kind) => Some(kind),
            _ => None,
        }
    }

    /// Returns the error if the writer's connection was cut.
    pub(super) fn reset_of_writer(&self) -> Option<io::Error> {
        let kind = self.failure().filter(|kind| is_reset(*kind));
        kind.map(io::Error::from)
    }

    /// Carries on until it has to wait; ready when it is over.
    ///
    /// `failure` is why `from` takes no more, if that is so. The kernel reports a reset only once,
    /// and shows an end afterwards.
    ///
    /// # Errors
    /// If `from` fails.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        failure: Option<io::ErrorKind>,
        shared: &mut Shared,
    ) -> Poll<io::Result<()>> {
        for _ in 0..READS_MAX {
            if self.is_over() {
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = ready!(self.poll_deliver(context, to, shared)) {
                self.fail(&error);
                continue;
            }
            if matches!(self.state, State::Open) {
                ready!(self.poll_take(context, from, to, shared))?;
                continue;
            }
            if let Some(kind) = failure.filter(|kind| is_reset(*kind)) {
                return Poll::Ready(Err(kind.into()));
            }
            match to.close_write() {
                Ok(()) => self.state = State::Closed,
                Err(error) => self.fail(&error),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn fail(&mut self, error: &io::Error) {
        self.state = State::Failed(error.kind());
        self.held = Held::Nothing;
    }

    /// Writes what is held; ready when nothing is.
    fn poll_deliver(
        &mut self,
        context: &mut Context<'_>,
        to: &Socket,
        shared: &mut Shared,
    ) -> Poll<io::Result<()>> {
        match &mut self.held {
            Held::Nothing => return Poll::Ready(Ok(())),
            Held::Bytes { bytes, at } => {
                while *at < bytes.len() {
                    let written = ready!(to.poll_write(context, &bytes[*at..]))?;
                    *at += written;
                    self.carried += written;
                }
            }
            Held::Pipe(pipe) => {
                while !pipe.is_empty() {
                    let moved = ready!(to.poll_empty(context, pipe))?;
                    self.carried += moved;
                    self.spliced += moved;
                }
            }
        }
        if let Held::Pipe(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            shared.pipes.give(pipe);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once. What can't be written at once is held.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        shared: &mut Shared,
    ) -> Poll<io::Result<()>> {
        if self.pace.is_splicing {
            ready!(from.poll_readable(context))?;
            match shared.pipes.take() {
                Ok(mut pipe) => match from.poll_fill(context, &mut pipe) {
                    Poll::Ready(Ok(Some(moved))) => {
                        self.pace.spliced(moved);
                        self.end_at(moved);
                        self.held = Held::Pipe(pipe);
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Ok(None)) => shared.pipes.give(pipe),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        shared.pipes.give(pipe);
                        return Poll::Pending;
                    }
                },
                // There are too few descriptors.
                Err(_) => self.pipes_missing += 1,
            }
        }
        self.poll_copy(context, from, to, &mut shared.buffer)
    }

    fn poll_copy(
        &mut self,
        context: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let read = ready!(from.poll_read(context, buffer))?;
        self.pace.copied(read == buffer.len());
        self.end_at(read);
        let mut left = &buffer[..read];
        while !left.is_empty() {
            match to.poll_write(context, left) {
                Poll::Ready(Ok(written)) => {
                    self.carried += written;
                    left = &left[written..];
                }
                Poll::Ready(Err(error)) => {
                    self.fail(&error);
                    break;
                }
                Poll::Pending => {
                    let bytes = left.to_owned();
                    self.held = Held::Bytes { bytes, at: 0 };
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end_at(&mut self, read: usize) {
        if read == 0 {
            self.state = State::AtEnd;
        }
    }
}

impl Pace {
    fn new(carry: Carry) -> Self {
        Self {
            is_splicing: carry == Carry::Splice,
            may_change: carry == Carry::Auto,
            streak: 0,
        }
    }

    /// Takes note of a copy.
    fn copied(&mut self, was_full: bool) {
        if !self.is_splicing {
            self.count(was_full, FULL_READS);
        }
    }

    /// Takes note of bytes that were spliced.
    fn spliced(&mut self, bytes: usize) {
        self.count(bytes < SMALL_BYTES, SMALL_READS);
    }

    fn count(&mut self, speaks_for_change: bool, needed: u32) {
        if !self.may_change {
            return;
        }
        self.streak = if speaks_for_change {
            self.streak + 1
        } else {
            0
        };
        if self.streak == needed {
            self.is_splicing = !self.is_splicing;
            self.streak = 0;
        }
    }
}

/// Returns whether a failed write means that the connection was cut. After an orderly end of the
/// peer, a write fails, too, but not in that way.
fn is_reset(kind: io::ErrorKind) -> bool {
    !matches!(
        kind,
        io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_full_reads_begin_to_splice_and_small_ones_end_it() {
        let mut pace = Pace::new(Carry::Auto);
        for _ in 1..FULL_READS {
            pace.copied(true);
        }
        pace.copied(false);
        for _ in 1..FULL_READS {
            pace.copied(true);
        }
        assert!(!pace.is_splicing, "they were not in a row");
        pace.copied(true);
        assert!(pace.is_splicing);
        for _ in 0..SMALL_READS {
            pace.spliced(SMALL_BYTES);
            pace.spliced(1);
        }
        assert!(pace.is_splicing);
        for _ in 1..SMALL_READS {
            pace.spliced(1);
        }
        assert!(!pace.is_splicing);
    }

    #[test]
    fn what_is_configured_stays() {
        let mut copying = Pace::new(Carry::Copy);
        let mut splicing = Pace::new(Carry::Splice);
        for _ in 0..100 {
            copying.copied(true);
            splicing.spliced(1);
        }
        assert!(!copying.is_splicing && splicing.is_splicing);
    }
}
