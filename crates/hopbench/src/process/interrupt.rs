//! Ctrl-C, SIGTERM and a closed terminal as something that can be waited for.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag, low_level,
};

/// The first signal is a request to stop; a second one stops at once.
#[derive(Debug)]
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    /// Readable once a signal has come, and from then on.
    readable: UnixStream,
}

/// What a shell reports for a program that Ctrl-C has ended.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

impl Interrupt {
    /// Catches the signals from now on.
    pub(crate) fn catch() -> io::Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        let (readable, written) = UnixStream::pair()?;
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset.
            let code = i32::from(EXIT_INTERRUPTED);
            flag::register_conditional_shutdown(signal, code, requested.clone())?;
            flag::register(signal, requested.clone())?;
            low_level::pipe::register(signal, written.try_clone()?)?;
        }
        Ok(Self {
            requested,
            readable,
        })
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Relaxed)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
