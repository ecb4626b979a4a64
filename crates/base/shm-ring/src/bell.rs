//! Sleeping and being woken.
//!
//! ```text
//! sleeper                                ringer
//!   parked = 1                             mark a lane ready
//!   fence                       E5         fence
//!   nothing ready? sleep                   parked? parked = 0, ring
//! ```
//!
//! With both fences, at least one side sees what the other wrote: the sleeper finds the lane and
//! doesn't sleep, or the ringer finds the sleeper parked and rings. A bell that rings while nobody
//! sleeps ends the next sleep at once. The sleeper then finds nothing and sleeps again.

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

/// A flag that says whether one side sleeps, or is about to.
#[derive(Clone, Debug)]
pub struct Parking<W> {
    words: W,
    parked: usize,
}

/// A doorbell: an eventfd that wakes the peer from its poll.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl<W: Words> Parking<W> {
    /// Creates the flag over the word with the index `parked`.
    pub fn new(words: W, parked: usize) -> Self {
        Self { words, parked }
    }

    /// Announces that this side is about to sleep. It must look for work once more before it does.
    pub fn park(&self) {
        self.words.word(self.parked).store(1, Relaxed);
        // E5, the sleeper's half.
        fence(SeqCst);
    }

    /// Announces that this side is awake.
    pub fn unpark(&self) {
        self.words.word(self.parked).store(0, Relaxed);
    }

    /// Returns whether the peer must be woken: `true` once per sleep.
    pub fn must_ring(&self) -> bool {
        // E5, the ringer's half.
        fence(SeqCst);
        let parked = self.words.word(self.parked);
        parked.load(Relaxed) != 0 && parked.swap(0, Relaxed) != 0
    }
}

impl Bell {
    /// Creates a bell.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Takes over a bell that the peer has made.
    ///
    /// # Errors
    /// If the descriptor is no eventfd: on anything else, a wait could block forever or not at all.
    pub fn from_peer(descriptor: OwnedFd) -> io::Result<Self> {
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let what = fs::read_link(link)?;
        if what != Path::new("anon_inode:[eventfd]") {
            let message = format!(
                "the peer's doorbell is '{}', expected an eventfd",
                what.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(descriptor))
    }

    /// Rings the bell.
    ///
    /// # Errors
    /// If the descriptor can't be written to.
    pub fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            // The count is at its limit, after 2^64 rings that nobody read. The bell is readable.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties the bell if it is full, which only a malicious peer can cause. Both sides share one
    /// open file, and either can make it blocking. Ringing a full bell would then block.
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
        // An offset of -1 is the file's own position, which an eventfd doesn't have. NOWAIT keeps
        // the call from blocking, even if the file is blocking.
        match preadv2(&self.0, &mut into, u64::MAX, ReadWriteFlags::NOWAIT) {
            // Another reader was first.
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
