//! Pipes, through which bytes pass from socket to socket without being copied.

use std::{net::TcpStream, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    bytes: usize,
}

/// The pipes of a worker that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    spare: Vec<Pipe>,
}

/// Most pipes that a worker keeps. Each is two descriptors and, while it is empty, a few KiB. More
/// pipes than these are in use only while as many connections wait for slow readers.
const SPARE_MAX: usize = 32;

/// Size that a pipe is given. Without privileges, the kernel gives all pipes of a user together 64
/// MiB (`pipe-user-pages-soft`).
const PIPE_BYTES: usize = 256 * 1024;

impl Pipes {
    /// Takes an empty pipe, or makes one.
    ///
    /// # Errors
    /// If there are too few descriptors.
    pub(super) fn take(&mut self) -> Result<Pipe, Errno> {
        match self.spare.pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    /// Takes back a pipe. One with bytes in it is closed: they are nobody else's.
    pub(super) fn give(&mut self, pipe: Pipe) {
        if pipe.is_empty() && self.spare.len() < SPARE_MAX {
            self.spare.push(pipe);
        }
    }
}

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A pipe that may not be larger is slower, but works.
        let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
        Ok(Self {
            reader,
            writer,
            bytes: 0,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Moves bytes from a socket into the pipe, which must be empty. So if the call would block,
    /// that is since there is nothing to read, never since the pipe is full.
    pub(super) fn fill(&mut self, socket: &TcpStream) -> Result<usize, Errno> {
        debug_assert!(self.is_empty(), "{} bytes are left", self.bytes);
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(socket, None, &self.writer, None, PIPE_BYTES, flags)?;
        self.bytes = moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe, which must not be empty, to a socket. So if the call would block,
    /// that is since the socket is full.
    pub(super) fn empty(&mut self, socket: &TcpStream) -> Result<usize, Errno> {
        debug_assert!(!self.is_empty(), "nothing to move");
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(&self.reader, None, socket, None, self.bytes, flags)?;
        self.bytes -= moved;
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    fn joined() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let near = TcpStream::connect(address).expect("it listens");
        (near, listener.accept().expect("connected").0)
    }

    #[test]
    fn bytes_pass_and_a_pipe_with_bytes_is_not_kept() {
        let (mut near, far) = joined();
        let mut pipes = Pipes::default();
        near.write_all(b"abc").expect("written");
        let mut pipe = pipes.take().expect("a pipe");
        far.set_nonblocking(true).expect("a socket");
        // The bytes of a loopback connection are there when the write returns.
        assert_eq!(pipe.fill(&far), Ok(3));
        pipes.give(pipe);
        assert!(pipes.spare.is_empty());

        let mut pipe = pipes.take().expect("a pipe");
        assert_eq!(pipe.fill(&far), Err(Errno::AGAIN));
        near.write_all(b"de").expect("written");
        assert_eq!(pipe.fill(&far), Ok(2));
        assert_eq!(pipe.empty(&far), Ok(2));
        pipes.give(pipe);
        assert_eq!(pipes.spare.len(), 1);
        let mut received = [0; 2];
        near.read_exact(&mut received).expect("received");
        assert_eq!(&received, b"de");
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut pipes = Pipes::default();
        let taken: Vec<Pipe> = (0..SPARE_MAX + 3)
            .map(|_| pipes.take().expect("a pipe"))
            .collect();
        taken.into_iter().for_each(|pipe| pipes.give(pipe));
        assert_eq!(pipes.spare.len(), SPARE_MAX);
    }
}
