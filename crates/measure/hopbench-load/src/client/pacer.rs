//! A clock and a timer with a resolution of nanoseconds; tokio's own timers have milliseconds.

use std::{
    cell::{Cell, RefCell},
    hint, io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::lead::Lead;

const SECOND_NS: u64 = 1_000_000_000;

/// Returns the time in nanoseconds, by the monotonic clock that the timer uses.
#[expect(
    clippy::cast_sign_loss,
    reason = "the clock begins at 0, and nanoseconds are fewer than a second"
)]
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * SECOND_NS + now.tv_nsec as u64
}

/// A timer for one instant. The kernel's timer slack doesn't apply to it.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: AsyncFd<OwnedFd>,
    lead: RefCell<Lead>,
    /// When the thread should be awake.
    due_ns: Cell<u64>,
    /// When the timer fires: before `due_ns` by the lead.
    fires_ns: Cell<u64>,
}

impl Timer {
    /// Creates a timer that is not set yet and will be set about once per interval. Must be called
    /// within a tokio runtime.
    #[expect(
        deprecated,
        reason = "its successor is not safe code; an OwnedFd is the descriptor it says it is"
    )]
    pub(crate) fn new(interval_ns: u64) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            timer: AsyncFd::with_interest(timer, Interest::READABLE)?,
            lead: Lead::new(interval_ns).into(),
            due_ns: Cell::new(0),
            fires_ns: Cell::new(0),
        })
    }

    pub(crate) fn is_set_to(&self, due_ns: u64) -> bool {
        self.due_ns.get() == due_ns
    }

    pub(crate) fn due_ns(&self) -> u64 {
        self.due_ns.get()
    }

    /// Sets the timer to an instant of [`now_ns`]. If the instant has passed, the timer fires at
    /// once.
    pub(crate) fn set(&self, due_ns: u64) -> io::Result<()> {
        let fires_ns = due_ns.saturating_sub(self.lead.borrow().ns()).max(now_ns());
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let it_value = Timespec {
            tv_sec: (fires_ns / SECOND_NS)
                .try_into()
                .map_err(io::Error::other)?,
            tv_nsec: (fires_ns % SECOND_NS)
                .try_into()
                .map_err(io::Error::other)?,
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value,
        };
        // An absolute time, so that this program's own delays don't add up.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        self.due_ns.set(due_ns);
        self.fires_ns.set(fires_ns);
        Ok(())
    }

    /// Ready once, when the timer has fired and the instant has come. The descriptor need not be
    /// read: setting the timer again resets it.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = ready!(self.timer.poll_read_ready(context))?;
        guard.clear_ready();
        // If that is still to come, an instant that was set earlier has fired.
        if let Some(took_ns) = now_ns().checked_sub(self.fires_ns.get()) {
            self.lead.borrow_mut().woken_after(took_ns);
            // Spins for at most the lead, which has a limit. Sleeping again would take longer.
            while now_ns() < self.due_ns.get() {
                hint::spin_loop();
            }
        }
        Poll::Ready(Ok(()))
    }
}
