//! Stands between a client's socket and hyper: refuses ambiguous requests and limits waiting.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    deadline::Deadline,
    framing::{Framing, Part},
    write::poll_pieces,
};

/// Time limits for a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// For a whole head, from its first byte on.
    pub head: Duration,
    /// For a client that sends nothing between requests or in a body, or takes nothing.
    pub idle: Duration,
    /// Largest head, in bytes.
    pub head_bytes_max: usize,
    /// Most fields in a head.
    pub fields_max: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            head_bytes_max: 16 * 1024,
            fields_max: 100,
        }
    }
}

/// State by which the socket and the service of one connection tell each other how it goes.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Number of requests that are being answered.
    busy: AtomicUsize,
    /// Whether an answer was cut off. The client must not take the end of the connection for the
    /// end of the answer.
    is_cut: AtomicBool,
    /// Whether the connection speaks another protocol by now.
    is_upgraded: AtomicBool,
}

/// A request that is being answered, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

/// Limit of a connection with another protocol on which nothing moves in either direction. What is
/// usual there is unknown: a WebSocket may well be silent for minutes.
const UPGRADED_IDLE: Duration = Duration::from_secs(3_600);

impl Busy {
    pub(crate) fn begin(activity: &Arc<Activity>) -> Self {
        activity.busy.fetch_add(1, Relaxed);
        Self(Arc::clone(activity))
    }

    /// Notes that the answer was cut off.
    pub(crate) fn cut(&self) {
        self.0.is_cut.store(true, Relaxed);
    }

    /// Notes that the connection changes to another protocol.
    pub(crate) fn upgraded(&self) {
        self.0.is_upgraded.store(true, Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Guard {
    stream: TcpStream,
    /// Bytes that were read before, and come first.
    early: Bytes,
    /// `None` for HTTP/2, whose frames have a length each.
    framing: Option<Framing>,
    activity: Arc<Activity>,
    limits: ClientLimits,
    reading: Deadline,
    writing: Deadline,
    waits_for: Part,
    /// Whether something ambiguous has come.
    is_faulty: bool,
}

impl Guard {
    pub(crate) fn new(
        stream: TcpStream,
        early: Bytes,
        framing: Option<Framing>,
        activity: Arc<Activity>,
        limits: ClientLimits,
    ) -> Self {
        Self {
            stream,
            early,
            framing,
            activity,
            limits,
            reading: Deadline::default(),
            writing: Deadline::default(),
            waits_for: Part::End,
            is_faulty: false,
        }
    }

    /// Overwrites what is ambiguous, and all that follows, with bytes that no parser takes. hyper
    /// then answers 400 and closes.
    fn check(&mut self, bytes: &mut [u8]) {
        if let Some(framing) = &mut self.framing
            && let Err(at) = framing.follow(bytes)
        {
            bytes[at..].fill(0);
            self.is_faulty = true;
        }
    }

    /// Fails once the client has sent nothing for too long.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let part = self.framing.as_ref().map_or(Part::End, Framing::part);
        if part == Part::End && self.activity.busy.load(Relaxed) > 0 {
            self.reading.clear();
            return Poll::Pending;
        }
        // A head has one limit as a whole. All else may go on as long as something comes.
        if part != self.waits_for || !self.reading.is_set() {
            let is_upgraded = self.activity.is_upgraded.load(Relaxed);
            let limit = match part {
                _ if is_upgraded => UPGRADED_IDLE,
                Part::Head => self.limits.head,
                Part::End | Part::Body => self.limits.idle,
            };
            self.reading.set(limit);
            self.waits_for = part;
        }
        ready!(self.reading.poll_passed(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes on what a write came to, but fails once the client has taken nothing for too long.
    fn poll_written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.writing.clear();
            if self.activity.is_upgraded.load(Relaxed) {
                self.reading.clear();
            }
            return written;
        }
        if !self.writing.is_set() {
            self.writing.set(self.limits.idle);
        }
        ready!(self.writing.poll_passed(context));
        self.activity.is_cut.store(true, Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_faulty {
            // Whoever reads on, such as hyper in trailers, waits for an end that never comes.
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        let read = if self.early.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let length = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(length));
            Poll::Ready(Ok(()))
        };
        match read {
            Poll::Ready(Ok(())) => {
                self.check(&mut buffer.filled_mut()[before..]);
                if self.waits_for != Part::Head {
                    self.reading.clear();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
            Poll::Pending => self.poll_late(context),
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_written(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = poll_pieces(Pin::new(&mut self.stream), context, slices);
        self.poll_written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_cut.load(Relaxed) {
            // Dropping the socket resets the connection now.
            return Poll::Ready(self.stream.set_zero_linger());
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncReadExt as _,
        net::TcpListener,
        time::{Instant, timeout},
    };

    use super::*;

    async fn joined(activity: &Arc<Activity>) -> (Guard, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let client = TcpStream::connect(address).await.expect("it listens");
        let (stream, _) = listener.accept().await.expect("a client");
        let framing = Some(Framing::default());
        let limits = ClientLimits::default();
        let early = Bytes::new();
        let guard = Guard::new(stream, early, framing, Arc::clone(activity), limits);
        (guard, client)
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_silent_client_is_waited_for_as_long_as_its_state_allows() {
        let idle = ClientLimits::default().idle;
        for (is_upgraded, limit) in [(false, idle), (true, UPGRADED_IDLE)] {
            let activity = Arc::new(Activity::default());
            activity.is_upgraded.store(is_upgraded, Relaxed);
            let (mut guard, _client) = joined(&activity).await;
            let begin = Instant::now();
            let read = guard.read_u8().await.expect_err("nothing comes");
            assert_eq!(read.kind(), io::ErrorKind::TimedOut);
            assert_eq!(begin.elapsed().as_secs(), limit.as_secs());
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_client_that_waits_for_an_answer_is_not_late_until_it_has_it() {
        let activity = Arc::new(Activity::default());
        let (mut guard, _client) = joined(&activity).await;
        let busy = Busy::begin(&activity);
        let long = 10 * ClientLimits::default().idle;
        assert!(timeout(long, guard.read_u8()).await.is_err());
        drop(busy);
        let read = guard.read_u8().await.expect_err("nothing comes");
        assert_eq!(read.kind(), io::ErrorKind::TimedOut);
    }
}
