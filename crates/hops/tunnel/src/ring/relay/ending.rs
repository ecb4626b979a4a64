//! Ends connections without an event that says so: when what was written has arrived, when nothing
//! has moved for too long, when the peer has gone, and when the loop stops.

use std::time::{Duration, Instant};

use super::{LaneState, Loop, Progress, helpers::Done};
use crate::{local::Idleness, ring::link::RelayError};

/// Connections that end as soon as what was written to them has arrived. No event tells when, so
/// the loop checks each of them, first after a short pause, then less and less often. Without such
/// connections it checks nothing.
#[derive(Debug, Default)]
pub(super) struct Endings(Vec<Ending>);

#[derive(Debug)]
struct Ending {
    lane: usize,
    next_look: Instant,
    pause: Duration,
}

/// Pause before the first check. Mostly, everything has arrived by then.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two checks of a client that doesn't read for long.
const PAUSE_MAX: Duration = Duration::from_millis(320);

impl Endings {
    /// Checks a lane from now on, unless it is being checked already.
    pub(super) fn add(&mut self, lane: usize) {
        if self.0.iter().all(|ending| ending.lane != lane) {
            self.0.push(Ending::new(lane, FIRST_PAUSE, Instant::now()));
        }
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.0.iter().map(|ending| ending.next_look).min()
    }

    /// Takes out the connections that are due for a check.
    fn take_due(&mut self, now: impl FnOnce() -> Instant) -> Vec<Ending> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let now = now();
        let is_due = |ending: &mut Ending| ending.next_look <= now;
        self.0.extract_if(.., is_due).collect()
    }
}

impl Ending {
    fn new(lane: usize, pause: Duration, now: Instant) -> Self {
        Self {
            lane,
            next_look: now + pause,
            pause,
        }
    }

    /// Schedules the next check, after twice the pause.
    fn again(self) -> Self {
        let pause = (2 * self.pause).min(PAUSE_MAX);
        Self::new(self.lane, pause, self.next_look)
    }
}

impl Loop {
    /// Ends connections for which all that was written has arrived.
    pub(super) fn end_arrived(&mut self) {
        for ending in self.endings.take_due(Instant::now) {
            let lane = ending.lane;
            // The connection may have ended otherwise meanwhile, and the lane may have another one.
            if let LaneState::Open(connection) = &self.lanes[lane]
                && connection.is_ending()
            {
                let progress = connection.look_whether_arrived();
                if progress == Progress::Open {
                    self.endings.0.push(ending.again());
                }
                self.after(lane, progress);
            }
        }
    }

    pub(super) fn look_after(&self, now: Instant) -> Option<Instant> {
        Some(now + Idleness::look_interval(self.idle_timeout?))
    }

    /// Resets connections on which nothing has moved for too long.
    pub(super) fn reset_idle(&mut self) {
        let now = match self.next_look {
            Some(look) if look <= Instant::now() => Instant::now(),
            _ => return,
        };
        let mut are_open = false;
        for index in 0..self.lanes.len() {
            match &mut self.lanes[index] {
                LaneState::Open(connection) => {
                    are_open = true;
                    if connection.look() {
                        tracing::debug!("a connection was reset: no more bytes moved");
                        self.after(index, Progress::Failed);
                    }
                }
                LaneState::Lent(_) => are_open = true,
                LaneState::Closing(_) | LaneState::Free => {}
            }
        }
        self.next_look = self.look_after(now).filter(|_| are_open);
    }

    /// Once the peer has gone, ends every connection for which nothing is left to deliver. Returns
    /// whether none is left, or it has taken too long.
    pub(super) fn is_over(&mut self) -> Result<bool, RelayError> {
        let Some(deadline) = self.last_words else {
            return Ok(false);
        };
        let mut open = 0;
        for index in 0..self.lanes.len() {
            match &mut self.lanes[index] {
                LaneState::Open(connection) => {
                    let progress = connection.on_peer_gone()?;
                    open += usize::from(progress == Progress::Open);
                    self.after(index, progress);
                }
                LaneState::Lent(_) => open += 1,
                LaneState::Closing(_) | LaneState::Free => {}
            }
        }
        Ok(open == 0 || deadline <= Instant::now())
    }

    pub(super) fn stop(&mut self) {
        for _ in 0..std::mem::take(&mut self.lent) {
            if let Some(Done {
                lane,
                connection,
                progress,
            }) = self.returns.wait()
            {
                self.lanes[lane] = LaneState::Open(connection);
                // The connection may have ended in order.
                self.after(lane, progress.unwrap_or(Progress::Aborted));
            }
        }
        for index in 0..self.lanes.len() {
            match self.lanes[index] {
                LaneState::Open(_) => self.after(index, Progress::Aborted),
                // The helper that had it panicked.
                LaneState::Lent(_) => {
                    self.link.counters.tunnels_open.subtract(1);
                    self.link.counters.tunnels_failed.add(1);
                }
                LaneState::Closing(_) | LaneState::Free => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_is_looked_at_ever_less() {
        let mut endings = Endings::default();
        endings.add(3);
        endings.add(3);
        let first = endings.next_look().expect("it is ending");
        assert!(endings.take_due(|| first - FIRST_PAUSE).is_empty());
        let mut looks = 0;
        for ms in 0..10_000 {
            let now = first + Duration::from_millis(ms);
            for ending in endings.take_due(|| now) {
                looks += 1;
                endings.0.push(ending.again());
            }
        }
        // Six in the first 315 ms, then three in a second.
        assert!((30..40).contains(&looks), "{looks} looks in ten seconds");
    }
}
