//! System calls and copies by raw pointer, on bytes that the peer can write.

use std::{
    fmt, io,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Shared bytes to read. They are not a slice, since they may change at any time.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Readable<'a>(libc::iovec, PhantomData<&'a ()>);

/// Shared bytes of this side, to be written.
#[repr(transparent)]
pub struct Space<'a>(libc::iovec, PhantomData<&'a ()>);

/// Result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Number of bytes; 0 at the end of the stream, or if there was no room.
    pub bytes: usize,
    /// Whether something other than bytes has ended the call. More bytes may be behind it.
    pub is_cut: bool,
}

/// Most pieces of memory in one system call.
pub const PIECES_MAX: usize = 64;

impl<'a> Readable<'a> {
    /// Makes a `Readable` of the `length` bytes from `start` on.
    ///
    /// # Safety
    /// The bytes must stay mapped for `'a`.
    pub(crate) unsafe fn new(start: *const u8, length: usize) -> Self {
        Self(
            libc::iovec {
                iov_base: start.cast_mut().cast(),
                iov_len: length,
            },
            PhantomData,
        )
    }

    /// Returns a `Readable` of no bytes.
    pub fn empty() -> Self {
        // SAFETY: no bytes are promised.
        unsafe { Self::new(std::ptr::null(), 0) }
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    /// Returns the bytes without the first `count`.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn skip(self, count: usize) -> Self {
        let length = self.0.iov_len.checked_sub(count).expect("within");
        let start = self.0.iov_base.cast::<u8>().wrapping_add(count);
        // SAFETY: these bytes are a part of what `self` promises.
        unsafe { Self::new(start, length) }
    }

    /// Copies out as many of the first bytes as `target` has room for. Returns how many.
    pub fn copy_to(&self, target: &mut [u8]) -> usize {
        let length = self.0.iov_len.min(target.len());
        // SAFETY: the bytes are mapped for `'a`, `target` is this process's alone, and the two
        // can't overlap. The peer may write meanwhile: any byte may then be old or new, and both
        // are bytes that the peer has chosen. A slice would not be safe, since it must not change
        // while it is borrowed.
        unsafe {
            std::ptr::copy_nonoverlapping(self.0.iov_base.cast(), target.as_mut_ptr(), length);
        }
        length
    }
}

impl Space<'_> {
    /// Makes a `Space` of the `length` bytes from `start` on.
    ///
    /// # Safety
    /// The bytes must stay mapped and writable for `'a`, and no reference to them may be in use.
    pub(crate) unsafe fn new(start: *mut u8, length: usize) -> Self {
        Self(
            libc::iovec {
                iov_base: start.cast(),
                iov_len: length,
            },
            PhantomData,
        )
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    /// Copies as much of `source` as fits behind the first `offset` bytes. Returns how many bytes
    /// it copied.
    pub fn copy_from(&mut self, offset: usize, source: &[u8]) -> usize {
        let length = source.len().min(self.0.iov_len.saturating_sub(offset));
        let start = self.0.iov_base.cast::<u8>().wrapping_add(offset);
        if length > 0 {
            // SAFETY: the space is mapped and writable for `'a`, it is long enough, and `source`
            // can't overlap with it: no reference to the space is in use.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), start, length) };
        }
        length
    }
}

/// Reads what a socket has into the spaces, in order.
///
/// # Errors
/// As recv(2) with `MSG_DONTWAIT`. An interrupted call is repeated.
pub fn read(from: BorrowedFd<'_>, spaces: &mut [Space<'_>]) -> io::Result<Received> {
    // Mostly there is one piece, for which recv(2) takes a tenth less time than recvmsg(2).
    if let [Space(piece, _)] = spaces {
        let from = from.as_raw_fd();
        // SAFETY: the piece names bytes that may be written.
        let bytes = repeat(|| unsafe {
            libc::recv(from, piece.iov_base, piece.iov_len, libc::MSG_DONTWAIT)
        })?;
        return Ok(Received {
            bytes,
            is_cut: false,
        });
    }
    read_alone(from, spaces)
}

/// Reads as [`read`] does, from a Unix socket. Descriptors may come with the bytes. They are
/// dropped, but they end a call, which recv(2) doesn't report.
///
/// # Errors
/// As recvmsg(2) with `MSG_DONTWAIT`. An interrupted call is repeated.
pub fn read_alone(from: BorrowedFd<'_>, spaces: &mut [Space<'_>]) -> io::Result<Received> {
    let count = spaces.len().min(PIECES_MAX);
    let mut message = message(spaces.as_mut_ptr().cast::<libc::iovec>(), count);
    let from = from.as_raw_fd();
    // SAFETY: `Space` is an iovec, `count` of them are there, and each names bytes that may be
    // written. There is nowhere to put anything else.
    let bytes = repeat(|| unsafe { libc::recvmsg(from, &raw mut message, libc::MSG_DONTWAIT) })?;
    Ok(Received {
        bytes,
        is_cut: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Returns how many bytes were written to a socket and have not arrived, or, on a Unix socket, have
/// not been read.
///
/// # Errors
/// As ioctl(2) with `SIOCOUTQ`.
pub fn bytes_under_way(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ`, another name of `SIOCOUTQ`, writes one integer.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Writes as many of the bytes as the socket takes, in order. Returns how many.
///
/// # Errors
/// As send(2) with `MSG_DONTWAIT`. An interrupted call is repeated.
pub fn write(to: BorrowedFd<'_>, bytes: &[Readable<'_>]) -> io::Result<usize> {
    const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let to = to.as_raw_fd();
    if let [Readable(piece, _)] = bytes {
        // SAFETY: the piece names mapped bytes. They may change while the kernel reads them, which
        // the kernel allows.
        return repeat(|| unsafe { libc::send(to, piece.iov_base, piece.iov_len, FLAGS) });
    }
    let count = bytes.len().min(PIECES_MAX);
    let message = message(bytes.as_ptr().cast_mut().cast(), count);
    // SAFETY: `Readable` is an iovec and `count` of them are there. Otherwise as above.
    repeat(|| unsafe { libc::sendmsg(to, &raw const message, FLAGS) })
}

pub(crate) fn message(pieces: *mut libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: every field is an integer or a pointer, which may be null.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    message
}

pub(crate) fn repeat(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

impl fmt::Debug for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readable({})", self.len())
    }
}

impl fmt::Debug for Space<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({})", self.len())
    }
}
