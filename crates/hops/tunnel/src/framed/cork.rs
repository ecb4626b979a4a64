//! A byte stream that gathers small writes and reads ahead, to go under rapace's stream transport.
//!
//! rapace writes each frame with three calls (length, descriptor, payload) and reads it with three.
//! On a bare socket each is a system call: about 900 for a 256 KiB response in 4 KiB frames. Here
//! small writes are gathered until the writer calls [`Corked::flush`]. A large write goes out
//! together with them in one `writev`. A read also takes what follows, up to a bound.
//!
//! ```text
//! rapace: write(4) write(64) write(64 KiB) flush
//!           └──► gathered ◄─┘      │         └─ does nothing: more frames may follow
//!                   └── writev([68, 64 KiB])
//! ```
//!
//! `rapace` counts the copies made here, because it can tell payload from framing.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use rapace::MsgDescHot;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{copy, counters::Counters};

/// Writes up to this length are gathered; longer ones are not worth a copy. A copy of 4 KiB costs
/// about a tenth of the system call that it saves.
pub(super) const GATHER_BYTES: usize = 4 * 1024;

/// Most bytes that are gathered without a flush: a fraction of a Unix socket's default buffer (208
/// KiB), so that the peer can start while more is gathered.
const GATHERED_BYTES_MAX: usize = 32 * 1024;

/// Most bytes that a read takes beyond what was asked for. That is enough for dozens of small
/// frames per system call, and so little that seven eighths of a 64 KiB payload go straight to
/// their place.
const AHEAD_BYTES: usize = 8 * 1024;

/// The socket to the peer.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The end for rapace, which wants to own a stream.
#[derive(Debug)]
pub(crate) struct CorkedStream(Corked);

/// The end for the writer, which knows when no more frames follow.
#[derive(Clone, Debug)]
pub(crate) struct Corked(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: Socket,
    gathered: Mutex<Gathered>,
    ahead: Mutex<Ahead>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Gathered {
    bytes: Vec<u8>,
    /// Bytes at the front that the socket has taken already.
    sent: usize,
}

#[derive(Debug)]
struct Ahead {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    frames: Frames,
}

/// Follows where frames begin in the received bytes. rapace allocates as much as a length says
/// before it reads any of it, so a corrupt length must not even reach it.
#[derive(Debug)]
struct Frames {
    frame_bytes_max: usize,
    /// The next frame's length, as far as it has come.
    length: [u8; 4],
    length_bytes: usize,
    /// Bytes that are left of the frame that has begun.
    left: usize,
}

impl Corked {
    /// Wraps `socket`. A frame whose payload is longer than `payload_bytes_max` is an error.
    pub(crate) fn new(
        socket: Socket,
        payload_bytes_max: usize,
        counters: Arc<Counters>,
    ) -> (CorkedStream, Self) {
        let gathered = Gathered {
            bytes: Vec::with_capacity(GATHERED_BYTES_MAX),
            sent: 0,
        };
        let ahead = Ahead {
            bytes: vec![0; AHEAD_BYTES].into(),
            start: 0,
            end: 0,
            frames: Frames {
                frame_bytes_max: size_of::<MsgDescHot>() + payload_bytes_max,
                length: [0; 4],
                length_bytes: 0,
                left: 0,
            },
        };
        let corked = Self(Arc::new(Inner {
            socket,
            gathered: Mutex::new(gathered),
            ahead: Mutex::new(ahead),
            counters,
        }));
        (CorkedStream(corked.clone()), corked)
    }

    /// Sends the gathered bytes.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_drain(cx)).await
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.0.gathered.lock().expect("no panic while gathering")
    }

    fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.gathered();
        while !gathered.bytes.is_empty() {
            ready!(self.poll_send(cx, &mut gathered, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the gathered bytes and `payload` with one `writev`. Returns how many bytes of
    /// `payload` were taken.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        gathered: &mut Gathered,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        let waiting = gathered.bytes.len() - gathered.sent;
        loop {
            ready!(self.0.socket.poll_write_ready(cx))?;
            let slices = [
                IoSlice::new(&gathered.bytes[gathered.sent..]),
                IoSlice::new(payload),
            ];
            match self.0.socket.try_write_vectored(&slices) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    self.0.counters.doorbells_sent.add(1);
                    gathered.advance(n.min(waiting));
                    return Poll::Ready(Ok(n.saturating_sub(waiting)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.counters.ring_full_stalls.add(1);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_fill(&self, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ahead = self.0.ahead.lock().expect("no panic while reading");
        let before = target.filled().len();
        ready!(self.poll_fill_from(&mut ahead, cx, target))?;
        Poll::Ready(ahead.frames.check(&target.filled()[before..]))
    }

    /// Takes bytes that were read ahead, or reads from the socket.
    fn poll_fill_from(
        &self,
        ahead: &mut Ahead,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ahead.start < ahead.end {
            let Ahead {
                bytes, start, end, ..
            } = ahead;
            *start += copy::fill(target, &bytes[*start..*end]);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.0.socket.poll_read_ready(cx))?;
            let wanted = target.remaining();
            // rapace passes initialised memory, so this costs nothing.
            let slice = target.initialize_unfilled();
            let mut slices = [IoSliceMut::new(slice), IoSliceMut::new(&mut ahead.bytes)];
            match self.0.socket.read_vectored(&mut slices) {
                Ok(n) => {
                    self.0.counters.wake_ups.add(1);
                    target.advance(n.min(wanted));
                    ahead.start = 0;
                    ahead.end = n.saturating_sub(wanted);
                    return Poll::Ready(Ok(()));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Gathered {
    fn advance(&mut self, sent: usize) {
        self.sent += sent;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}

impl Frames {
    /// Follows the frames in the bytes that come next.
    fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = bytes.len().min(self.left);
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.length[self.length_bytes] = *first;
            self.length_bytes += 1;
            bytes = rest;
            if self.length_bytes == self.length.len() {
                self.length_bytes = 0;
                self.left = u32::from_le_bytes(self.length) as usize;
                if self.left > self.frame_bytes_max {
                    let message = format!(
                        "the peer announced a frame of {} bytes, which is too long",
                        self.left
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
            }
        }
        Ok(())
    }
}

impl AsyncWrite for CorkedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self(corked) = &*self;
        let mut gathered = corked.gathered();
        if data.len() <= GATHER_BYTES {
            while gathered.bytes.len() + data.len() > GATHERED_BYTES_MAX {
                ready!(corked.poll_send(cx, &mut gathered, &[]))?;
            }
            copy::gather(&mut gathered.bytes, data);
            return Poll::Ready(Ok(data.len()));
        }
        // A partial write of the gathered bytes alone takes nothing of `data`: try again.
        loop {
            let taken = ready!(corked.poll_send(cx, &mut gathered, data))?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }

    /// Does nothing: rapace flushes after every frame, and more may follow. See [`Corked::flush`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_drain(cx)
    }
}

impl AsyncRead for CorkedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_fill(cx, target)
    }
}

impl Socket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(cx),
            Self::Unix(socket) => socket.poll_write_ready(cx),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(slices),
            Self::Unix(socket) => socket.try_write_vectored(slices),
        }
    }

    /// Reads once. A read that doesn't fill the slices has emptied the socket, and the runtime is
    /// told so. That saves a further read that would find nothing.
    fn read_vectored(&self, slices: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let room: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut read = None;
        let mut once = |result: rustix::io::Result<usize>| {
            let n = result?;
            read = Some(n);
            if n > 0 && n < room {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(n)
            }
        };
        let result = match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, || {
                once(rustix::io::readv(socket, slices))
            }),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, || {
                once(rustix::io::readv(socket, slices))
            }),
        };
        mem::take(&mut read).map_or(result, Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair(payload_bytes_max: usize) -> (CorkedStream, Corked, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a socket pair");
        let counters = Arc::new(Counters::default());
        let (stream, corked) = Corked::new(Socket::Unix(near), payload_bytes_max, counters);
        (stream, corked, far)
    }

    /// Small and large writes of odd sizes arrive as written, in order, and small ones together.
    #[tokio::test]
    async fn what_is_written_arrives_in_order() {
        let (mut stream, corked, mut far) = pair(1 << 20);
        let pieces: Vec<Vec<u8>> = [4, 64, 100_000, 1, 4096, 4097, 300_000]
            .map(|n: usize| vec![u8::try_from(n % 251).expect("small"); n])
            .into();
        let expected = pieces.concat();
        let reading = tokio::spawn(async move {
            let mut read = vec![0; expected.len()];
            far.read_exact(&mut read).await.expect("all arrives");
            assert!(read == expected);
        });
        for piece in &pieces {
            stream.write_all(piece).await.expect("written");
            stream.flush().await.expect("does nothing");
        }
        corked.flush().await.expect("sent");
        reading.await.expect("no panic");
    }

    #[tokio::test]
    async fn small_writes_share_a_system_call() {
        let (mut stream, corked, _far) = pair(1 << 20);
        for _ in 0..100 {
            stream.write_all(&[7; 68]).await.expect("gathered");
        }
        assert_eq!(corked.0.counters.doorbells_sent.get(), 0);
        corked.flush().await.expect("sent");
        assert_eq!(corked.0.counters.doorbells_sent.get(), 1);
    }

    #[tokio::test]
    async fn reads_of_any_size_give_what_was_sent() {
        let (mut stream, _corked, mut far) = pair(1 << 20);
        let frame = |length: u32| {
            let content = (0..length).map(|n| u8::try_from(n % 251).expect("small"));
            length.to_le_bytes().into_iter().chain(content)
        };
        let sent: Vec<u8> = [0, 64, 65_600, 3, 134_000]
            .into_iter()
            .flat_map(frame)
            .collect();
        let expected = sent.clone();
        tokio::spawn(async move { far.write_all(&sent).await });
        let mut read = Vec::new();
        for size in [4, 64, 65_536, 4, 64, 1, 9_000].into_iter().cycle() {
            let size = size.min(expected.len() - read.len());
            if size == 0 {
                break;
            }
            let start = read.len();
            read.resize(start + size, 0);
            stream
                .read_exact(&mut read[start..])
                .await
                .expect("all arrives");
        }
        assert!(read == expected);
        let end = stream.read(&mut [0; 1]).await.expect("a clean end");
        assert_eq!(end, 0);
    }

    #[tokio::test]
    async fn a_corrupt_length_is_an_error_before_anybody_can_act_on_it() {
        let (mut stream, _corked, mut far) = pair(1000);
        let [longest, too_long] = [1064_u32, 1065].map(u32::to_le_bytes);
        far.write_all(&longest).await.expect("room");
        far.write_all(&[0; 1064]).await.expect("room");
        // The length comes in two pieces.
        far.write_all(&too_long[..1]).await.expect("room");
        let mut read = [0; 4 + 1064 + 1];
        stream.read_exact(&mut read).await.expect("short enough");
        far.write_all(&too_long[1..]).await.expect("room");
        let error = stream.read_exact(&mut [0; 3]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("1065 bytes"), "{error}");
    }
}
