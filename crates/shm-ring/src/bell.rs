//! Sleeping and being woken.
//!
//! ```text
//! sleeper                                ringer
//!   parked = 1                             mark a lane ready
//!   fence                       E5         fence
//!   nothing ready? sleep                   parked? parked = 0, ring
//! ```
//!
//! With both fences one of the two sees what the other wrote: the sleeper finds the lane and
//! doesn't sleep, or the ringer finds it parked and rings. A bell that rings for nobody wakes the
//! next sleep at once, which then finds nothing and sleeps again.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, IoSliceMut, ReadWriteFlags, preadv2},
};

use crate::{
    sync::Ordering::{Relaxed, SeqCst},
    sync::fence,
    words::Words,
};

/// Whether one side sleeps, or is about to.
#[derive(Clone, Debug)]
pub struct Parking<W> {
    words: W,
    parked: usize,
}

/// Wakes the peer from its poll.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl<W: Words> Parking<W> {
    pub fn new(words: W, parked: usize) -> Self {
        Self { words, parked }
    }

    /// Says that this side is about to sleep. It must look once more before it does.
    pub fn park(&self) {
        self.words.word(self.parked).store(1, Relaxed);
        // E5, the sleeper's half.
        fence(SeqCst);
    }

    /// Says that this side is awake.
    pub fn unpark(&self) {
        self.words.word(self.parked).store(0, Relaxed);
    }

    /// Whether the peer must be woken; once per sleep.
    pub fn must_ring(&self) -> bool {
        // E5, the ringer's half.
        fence(SeqCst);
        let parked = self.words.word(self.parked);
        parked.load(Relaxed) != 0 && parked.swap(0, Relaxed) != 0
    }
}

impl Bell {
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// A bell that the peer has made.
    ///
    /// # Errors
    /// If it is something else, on which waiting could have no end, or none at all.
    pub fn from_peer(descriptor: OwnedFd) -> io::Result<Self> {
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let what = fs::read_link(link)?;
        if what != Path::new("anon_inode:[eventfd]") {
            let message = format!("'{}' is no bell, expected an eventfd", what.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(descriptor))
    }

    /// # Errors
    /// If the descriptor is none that can be rung.
    pub fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            // The count is at its limit: rung 2^64 times and never looked at, and still readable.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties it if it is full, which only a peer that is after that can bring about. The bell is
    /// one file for both sides, which either can make blocking: ringing it waits then.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn unblock(&self) -> io::Result<()> {
        let mut asked = [PollFd::new(&self.0, PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec::default()))?;
        if asked[0].revents().contains(PollFlags::OUT) {
            return Ok(());
        }
        let mut count = [0; 8];
        let mut into = [IoSliceMut::new(&mut count)];
        // From where the file is, which for this one is nowhere; without waiting even so.
        match preadv2(&self.0, &mut into, u64::MAX, ReadWriteFlags::NOWAIT) {
            // Somebody else was first.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use rustix::fs::{OFlags, fcntl_setfl};

    use super::*;

    #[test]
    fn a_bell_that_its_peer_has_filled_lets_go() {
        let bell = Bell::new().expect("a descriptor");
        bell.ring().expect("rung");
        bell.unblock().expect("asked");
        let mut count = [0; 8];
        rustix::io::read(&bell.0, &mut count).expect("rung");
        assert_eq!(
            u64::from_ne_bytes(count),
            1,
            "one that isn't full is let be"
        );

        fcntl_setfl(&bell.0, OFlags::empty()).expect("a file");
        let full = u64::MAX - 1;
        rustix::io::write(&bell.0, &full.to_ne_bytes()).expect("room");
        thread::scope(|scope| {
            let ringing = scope.spawn(|| bell.ring());
            while !ringing.is_finished() {
                bell.unblock().expect("emptied");
                thread::yield_now();
            }
        });
    }
}
