//! Waits for what sends no event: a schedule, a server that isn't there yet, a file that grows.

use std::time::{Duration, Instant};

/// Waits until a time that a schedule has set.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for")]
pub(crate) fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// Asks again and again, with pauses, until there is an answer or the time is up.
pub(crate) fn ask_until<T>(
    at_most: Duration,
    pause: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        wait_until(Instant::now() + pause);
    }
}
