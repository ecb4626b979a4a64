//! Pipes for what is long and comes from a socket: splice(2) moves its pages through one, from the
//! plugin's socket to the host's, and nobody copies them, the kernel included.
//!
//! A pipe is used like a slot of the arena: it is taken, filled once, named by a descriptor, and
//! free again when the peer is done with that.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags},
};

/// The plugin's pipes of one session: a host that has left must not have an end of the next one's.
#[derive(Clone, Debug)]
pub(crate) struct Pipes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pipes: Vec<Pipe>,
    free: Mutex<Vec<usize>>,
    /// Where what nobody wants goes.
    null: File,
}

#[derive(Debug)]
struct Pipe {
    /// What the host is given, too.
    outlet: OwnedFd,
    inlet: OwnedFd,
}

/// A pipe in use. Free again when dropped.
#[derive(Debug)]
pub(super) struct TakenPipe {
    pipes: Pipes,
    index: usize,
}

/// Most that a plugin has: as many descriptors can be sent at once.
pub(crate) const PIPES_MAX: usize = 128;

/// What is moved into a pipe at most, which bounds the memory that pipes hold.
const PIPE_BYTES: usize = 512 * 1024;

/// Of a pipe, the size that is asked for. It is counted in pages, one for each piece that the
/// kernel has received, and those are longer than a page: `PIPE_BYTES` fit.
const PIPE_CAPACITY_BYTES: usize = 256 * 1024;

/// Moves in which a pipe must be empty: it was filled once. Only who writes to it keeps it full.
const MOVES_UNTIL_EMPTY: usize = 64;

/// As many pipes as are wanted, or fewer, so that they take a quarter of the open files that this
/// process may have; each takes `files`.
pub(crate) fn affordable_pipes(wanted: usize, files: u64) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(FILES_WITHOUT));
    let pipes = usize::try_from(left / 4 / files).map_or(wanted, |pipes| pipes.min(wanted));
    if pipes < wanted {
        tracing::warn!(
            "the limit of open files leaves room for {pipes} of {wanted} pipes, long answers will \
             take longer; raise it with 'ulimit -n', or say --ring-pipes={pipes} to the plugin"
        );
    }
    pipes
}

/// Open files of a process without any pipe or connection, and a few connections.
const FILES_WITHOUT: u64 = 64;

impl Pipes {
    /// # Errors
    /// If there are no descriptors left.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let mut pipes = Vec::new();
        for _ in 0..count {
            let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
            let (outlet, inlet) = rustix::pipe::pipe_with(flags)?;
            // A user may have so much and no more; with less, it is filled more often.
            let _ = rustix::pipe::fcntl_setpipe_size(&inlet, PIPE_CAPACITY_BYTES);
            pipes.push(Pipe { outlet, inlet });
        }
        let free = Mutex::new((0..count).rev().collect());
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self(Arc::new(Shared { pipes, free, null })))
    }

    /// What the host needs of them.
    pub(crate) fn outlets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.pipes.iter().map(|pipe| pipe.outlet.as_fd())
    }

    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty pipe, if one is free.
    pub(super) fn take(&self) -> io::Result<Option<TakenPipe>> {
        let Some(index) = self.free().pop() else {
            return Ok(None);
        };
        let pipes = self.clone();
        let taken = TakenPipe { pipes, index };
        taken.empty()?;
        Ok(Some(taken))
    }
}

impl TakenPipe {
    /// What a descriptor calls it.
    pub(super) fn number(&self) -> u32 {
        u32::try_from(self.index).expect("few")
    }

    fn pipe(&self) -> &Pipe {
        &self.pipes.0.pipes[self.index]
    }

    /// Fills it from a socket, once. `None`: there is nothing for now.
    ///
    /// # Errors
    /// As splice(2); `InvalidInput` if the socket can't be spliced from.
    pub(super) fn fill(&self, source: BorrowedFd<'_>) -> io::Result<Option<usize>> {
        splice(source, self.pipe().inlet.as_fd(), PIPE_BYTES)
    }

    /// Throws away what a connection that was reset has left in it. By splice(2), which doesn't
    /// block: the pipe's own flag could be changed by the host.
    fn empty(&self) -> io::Result<()> {
        let (outlet, null) = (self.pipe().outlet.as_fd(), self.pipes.0.null.as_fd());
        for _ in 0..MOVES_UNTIL_EMPTY {
            if splice(outlet, null, PIPE_BYTES)?.is_none() {
                return Ok(());
            }
        }
        Err(io::Error::other("the host writes to the plugin's pipes"))
    }
}

impl Drop for TakenPipe {
    fn drop(&mut self) {
        self.pipes.free().push(self.index);
    }
}

/// Moves bytes between a pipe and a socket. `None`: not now.
///
/// # Errors
/// As splice(2).
pub(super) fn splice(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    bytes_max: usize,
) -> io::Result<Option<usize>> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    loop {
        return match rustix::pipe::splice(from, None, to, None, bytes_max, flags) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_empty_when_it_is_taken_and_free_when_it_is_dropped() {
        let pipes = Pipes::new(1).expect("descriptors");
        let source = File::open("/dev/zero").expect("a device");
        for _ in 0..2 {
            let taken = pipes.take().expect("a pipe").expect("one is free");
            assert!(pipes.take().expect("a pipe").is_none(), "it is in use");
            let filled = taken.fill(source.as_fd()).expect("room");
            assert!(filled > Some(0), "{filled:?}");
            let waiting = rustix::io::ioctl_fionread(pipes.outlets().next().expect("one"));
            assert_eq!(waiting, Ok(filled.unwrap_or_default() as u64));
        }
    }

    #[test]
    fn a_source_without_anything_and_one_that_cannot_be_spliced_are_told_apart() {
        let pipes = Pipes::new(1).expect("descriptors");
        let taken = pipes.take().expect("a pipe").expect("one is free");
        let (near, _far) = std::os::unix::net::UnixStream::pair().expect("sockets");
        near.set_nonblocking(true).expect("a socket");
        assert_eq!(taken.fill(near.as_fd()).expect("nothing yet"), None);
        let directory = File::open("/").expect("a directory");
        let refused = taken.fill(directory.as_fd()).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::InvalidInput));
    }
}
