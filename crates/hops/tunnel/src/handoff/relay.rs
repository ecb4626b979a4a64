//! A client's socket joined to an upstream's.
//!
//! A direction reads into its thread's arena, and writes from there. It reads nothing more until
//! all is written, so a slow reader holds back the writer, and nothing is copied in user space.

use std::{
    fmt,
    future::poll_fn,
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};

use super::{
    client::{Client, Connection, End},
    set_reset_on_close,
};
use crate::framed::{Registered, Sink, Source, arena};

/// Most bytes of one read: a buffer of the arena.
const READ_BYTES_MAX: usize = 128 * 1024;

/// Reason why a connection ended with a reset.
#[derive(Debug)]
pub(super) enum Failure {
    Unreachable,
    /// One side failed. The other must not take that for an end.
    Client(io::Error),
    Upstream(io::Error),
    Idle,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("its upstream could not be reached"),
            Self::Client(error) => write!(f, "client: {error}"),
            Self::Upstream(error) => write!(f, "upstream: {error}"),
            Self::Idle => f.write_str("idle for too long"),
        }
    }
}

/// How a direction ended, if its reader did not fail.
enum Over {
    /// The reader has reached its end.
    End,
    /// The writer takes no more.
    Unwanted(io::Error),
}

/// Waits for an upstream, and relays until both directions have ended or one side fails. Then both
/// sides are closed: after a failure with a reset.
pub(super) async fn relay(
    client: Client,
    upstream: impl Future<Output = Result<Registered, Failure>>,
) -> End {
    let connection = client.connection.clone();
    match run(client, upstream).await {
        Ok(()) => connection.end(),
        Err(failure) => {
            tracing::debug!("connection failed: {failure}");
            End::Failed
        }
    }
}

async fn run(
    client: Client,
    upstream: impl Future<Output = Result<Registered, Failure>>,
) -> Result<(), Failure> {
    let Client { socket, connection } = client;
    let client = socket.register().map_err(|error| {
        tracing::warn!("could not relay a client: {error}");
        Failure::Client(error)
    })?;
    let (from_client, to_client) = client.split();
    let upstream = tokio::select! {
        upstream = upstream => upstream?,
        error = to_client.failure() => return Err(Failure::Client(error)),
        () = connection.until_idle() => return Err(Failure::Idle),
    };
    // Like the client's: whoever closes it.
    set_reset_on_close(upstream.as_fd(), true);
    let (from_upstream, to_upstream) = upstream.split();
    let pair = Pair {
        connection: &connection,
        to_client,
        to_upstream,
    };
    let ended = pair.run(from_client, from_upstream).await;
    match &ended {
        Ok(()) => pair.end_in_order(),
        // What the upstream had sent before is still delivered, if the client wants it.
        Err(Failure::Upstream(_)) => tokio::select! {
            () = pair.to_client.until_arrived() => {}
            _ = pair.to_client.failure() => {}
        },
        Err(_) => {}
    }
    ended
}

/// A client and its upstream.
struct Pair<'a> {
    connection: &'a Connection,
    to_client: Sink,
    to_upstream: Sink,
}

/// The bytes of one direction.
#[derive(Clone, Copy)]
enum Direction<'a> {
    /// To the upstream. The flag says whether nothing is read, so that a failure of the client
    /// would not be found.
    Up(&'a AtomicBool),
    Down,
}

impl Pair<'_> {
    async fn run(&self, from_client: Source, from_upstream: Source) -> Result<(), Failure> {
        let is_deaf = AtomicBool::new(false);
        // Whether a failed write has told that the upstream cut the connection. The kernel reports
        // that only once, and shows an end afterwards.
        let was_cut = AtomicBool::new(false);
        let up = async {
            let carried = self.carry(from_client, &self.to_upstream, Direction::Up(&is_deaf));
            let over = carried.await.map_err(Failure::Client)?;
            is_deaf.store(true, Relaxed);
            match over {
                Over::End => self.to_upstream.shut_down(),
                Over::Unwanted(error) => was_cut.store(is_reset(&error), Relaxed),
            }
            Ok(())
        };
        let down = async {
            let carried = self.carry(from_upstream, &self.to_client, Direction::Down);
            match carried.await.map_err(Failure::Upstream)? {
                Over::End if was_cut.load(Relaxed) => return Err(cut_off()),
                Over::End => self.to_client.shut_down(),
                Over::Unwanted(error) => return Err(Failure::Client(error)),
            }
            Ok(())
        };
        let both = async {
            futures_util::future::try_join(up, down).await?;
            match was_cut.load(Relaxed) {
                true => Err(cut_off()),
                false => Ok(()),
            }
        };
        let mut failure = std::pin::pin!(self.to_client.failure());
        let failed_unheard = poll_fn(|cx| match is_deaf.load(Relaxed) {
            true => failure.as_mut().poll(cx),
            false => Poll::Pending,
        });
        tokio::select! {
            // The first future decides whether the second is polled.
            biased;
            ended = both => ended,
            error = failed_unheard => Err(Failure::Client(error)),
            () = self.connection.until_idle() => Err(Failure::Idle),
        }
    }

    /// Carries bytes until their end, or until the writer takes no more.
    ///
    /// # Errors
    /// If the reader fails.
    async fn carry(
        &self,
        mut source: Source,
        sink: &Sink,
        direction: Direction<'_>,
    ) -> io::Result<Over> {
        loop {
            let mut bytes = poll_fn(|cx| poll_read(cx, &mut source)).await?;
            if bytes.is_empty() {
                return Ok(Over::End);
            }
            if let Direction::Down = direction {
                self.connection.taken(bytes.len());
            }
            while !bytes.is_empty() {
                let mut written = sink.try_write(std::iter::once(&bytes[..]));
                if let Ok(0) = written {
                    written = until_writable(sink, direction).await.map(|()| 0);
                }
                let written = match written {
                    Ok(written) => written,
                    Err(error) => return Ok(Over::Unwanted(error)),
                };
                bytes.advance(written);
                match direction {
                    Direction::Up(_) => self.connection.given(written),
                    Direction::Down => self.connection.moved(written),
                }
            }
        }
    }

    /// Lets both sockets be closed as usual.
    fn end_in_order(&self) {
        for sink in [&self.to_client, &self.to_upstream] {
            if let Sink::Socket(socket) = sink {
                set_reset_on_close(socket.as_fd(), false);
            }
        }
    }
}

/// Waits until there is room. Meanwhile nothing is read.
async fn until_writable(sink: &Sink, direction: Direction<'_>) -> io::Result<()> {
    if let Direction::Up(is_deaf) = direction {
        is_deaf.store(true, Relaxed);
    }
    poll_fn(|cx| sink.poll_write_ready(cx)).await?;
    if let Direction::Up(is_deaf) = direction {
        is_deaf.store(false, Relaxed);
    }
    Ok(())
}

/// Reads what there is, at least a byte. No bytes are the end.
fn poll_read(cx: &mut Context<'_>, source: &mut Source) -> Poll<io::Result<Bytes>> {
    loop {
        ready!(source.poll_read_ready(cx))?;
        let read = arena::with(|arena| {
            let read = source.try_read(&mut arena.room(READ_BYTES_MAX))?;
            io::Result::Ok(read.map(|_| arena.split()))
        })?;
        if let Some(bytes) = read {
            return Poll::Ready(Ok(bytes));
        }
    }
}

fn cut_off() -> Failure {
    Failure::Upstream(io::ErrorKind::ConnectionReset.into())
}

/// Returns whether a failed write means that the connection was cut. After an orderly end of the
/// peer, a write fails, too, but not in that way.
fn is_reset(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
    )
}
