//! Turns Ctrl-C, SIGTERM and a closed terminal into an event that can be waited for.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag, low_level,
};

/// The first signal is a request to stop. A signal that comes [`LATER`] stops hopbench at once.
#[derive(Debug)]
pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    /// Readable from the first signal on.
    readable: UnixStream,
}

/// Signals within this time are the same request: Ctrl-C sends a signal to the whole process group,
/// and the parent process may pass it on as well.
const LATER: Duration = Duration::from_secs(1);

/// Exit code that a shell reports for a program ended by Ctrl-C.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

impl Interrupt {
    /// Catches the signals from now on.
    pub(crate) fn catch() -> io::Result<Self> {
        let [requested, is_later] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (readable, written) = UnixStream::pair()?;
        let (mut first, told) = UnixStream::pair()?;
        let armed = Arc::clone(&is_later);
        let arming = move || {
            if first.read_exact(&mut [0]).is_ok() {
                let end = Instant::now() + LATER;
                while let Some(left) = end.checked_duration_since(Instant::now()) {
                    thread::park_timeout(left);
                }
                armed.store(true, Relaxed);
            }
        };
        thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(arming)?;
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let code = i32::from(EXIT_INTERRUPTED);
            flag::register_conditional_shutdown(signal, code, Arc::clone(&is_later))?;
            low_level::pipe::register(signal, told.try_clone()?)?;
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
