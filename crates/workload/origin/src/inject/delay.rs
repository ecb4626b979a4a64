//! A pause shorter than the runtime's timers can make.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Holds answers by timers of the kernel: the runtime's timers are only good to a millisecond.
pub(super) struct Delay {
    delay: Duration,
    /// Timers that are not in use. They are kept, because making one costs more than the request
    /// that it is for.
    idle: Mutex<Vec<AsyncFd<OwnedFd>>>,
}

impl Delay {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay,
            idle: Mutex::default(),
        }
    }

    /// Waits for the delay.
    ///
    /// # Errors
    /// If no timer can be made, for example because there are too many open files.
    pub(super) async fn hold(&self) -> io::Result<()> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = idle().pop();
        let timer = match reused {
            Some(timer) => timer,
            None => new_timer()?,
        };
        self.wait_for(&timer).await?;
        // If the client goes away meanwhile, this isn't reached, and the armed timer is closed.
        idle().push(timer);
        Ok(())
    }

    async fn wait_for(&self, timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: self.delay.try_into().map_err(io::Error::other)?,
        };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = timer.readable().await?;
            let expired = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            // An error means that the timer wasn't ready after all.
            if let Ok(result) = expired {
                // The timer isn't armed any more, so this can't lose a readiness.
                ready.clear_ready();
                return result.map(drop);
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its replacement can't be called safely, for the sake of types that may close their \
              descriptor; this one doesn't"
)]
fn new_timer() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn answers_are_held_for_less_than_a_millisecond_if_asked_for() {
        let asked = Duration::from_micros(200);
        let delay = Delay::new(asked);
        // On a busy machine many are late; the runtime's own timers always are.
        let mut shortest = Duration::MAX;
        for _ in 0..1_000 {
            let start = Instant::now();
            delay.hold().await.expect("a timer");
            let held = start.elapsed();
            assert!(held >= asked, "{held:?}");
            shortest = shortest.min(held);
            if shortest < Duration::from_micros(900) {
                break;
            }
        }
        assert!(shortest < Duration::from_micros(900), "{shortest:?}");
        let idle = delay.idle.into_inner().expect("no panic");
        assert_eq!(idle.len(), 1, "one timer is enough for one after the other");
    }

    #[tokio::test]
    async fn those_held_at_the_same_time_don_t_wait_for_one_another() {
        let delay = Delay::new(Duration::from_millis(20));
        let all = futures_util::future::join_all((0..50).map(|_| delay.hold()));
        let start = Instant::now();
        assert!(all.await.into_iter().all(|held| held.is_ok()));
        assert!(start.elapsed() < Duration::from_millis(50 * 20));
        assert_eq!(delay.idle.into_inner().expect("no panic").len(), 50);
    }

    #[tokio::test]
    async fn a_timer_that_nobody_waits_for_any_more_is_closed() {
        let delay = Delay::new(Duration::from_secs(10));
        let waited = tokio::time::timeout(Duration::from_millis(1), delay.hold()).await;
        assert!(waited.is_err());
        assert!(delay.idle.into_inner().expect("no panic").is_empty());
    }
}
