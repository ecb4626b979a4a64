//! Lends connections with long writes to the helpers, and takes them back.

use nix::sched::sched_getcpu;
use shm_ring::Violation;

use super::{LaneState, Loop, Missed, Progress, helpers::Done};
use crate::ring::link::RelayError;

impl Loop {
    /// Lends the lanes that have a lot to write and whose sockets last received on other cores.
    /// Removes them from `ready`.
    pub(super) fn lend(&mut self, ready: &mut Vec<usize>) -> Result<(), RelayError> {
        // A single connection is served here: waking a helper would only delay it.
        let is_alone = ready.len() < 2 && self.due.count() < 2;
        if ready.is_empty() || is_alone || self.helpers.is_empty() {
            return Ok(());
        }
        // If the loop doesn't know its own core, it writes here.
        let Ok(own_core) = sched_getcpu() else {
            return Ok(());
        };
        let mut kept = 0;
        for ahead in 0..ready.len() {
            let lane = ready[ahead];
            if !self.lend_one(lane, own_core)? {
                ready[kept] = lane;
                kept += 1;
            }
        }
        ready.truncate(kept);
        Ok(())
    }

    /// Lends a lane, if that pays. Returns whether it was lent.
    fn lend_one(&mut self, index: usize, own_core: usize) -> Result<bool, Violation> {
        let LaneState::Open(connection) = &mut self.lanes[index] else {
            return Ok(false);
        };
        if !connection.has_bulk()? {
            return Ok(false);
        }
        let core = connection.core().filter(|core| *core != own_core);
        let Some(helper) = core.and_then(|core| self.helpers.on(core)) else {
            return Ok(false);
        };
        let lent = LaneState::Lent(Missed::default());
        if let LaneState::Open(connection) = std::mem::replace(&mut self.lanes[index], lent) {
            self.lent += 1;
            helper.lend(index, connection, &self.returns);
        }
        Ok(true)
    }

    /// Takes connections back from the helpers and goes on with them.
    pub(super) fn take_back(&mut self) -> Result<(), RelayError> {
        while self.lent > 0
            && let Some(done) = self.returns.take()
        {
            self.lent -= 1;
            let Done {
                lane,
                mut connection,
                mut progress,
            } = done?;
            // The missed events are this connection's. If it ends, the lane may be given to
            // another.
            if let LaneState::Lent(missed) = &self.lanes[lane]
                && let Ok(Progress::Open) = progress
            {
                progress = connection.catch_up(*missed);
                self.burst.add(connection.take_written());
            }
            self.lanes[lane] = LaneState::Open(connection);
            self.after(lane, progress?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::AsFd, unix::net::UnixStream},
        sync::Arc,
        time::Duration,
    };

    use mio::Events;

    use super::*;
    use crate::{
        ring::{
            lane::{Lane, State},
            link::Terms,
            relay::{Helpers, Readiness, Relay, RelayOptions},
            socket::RelaySocket,
            tests::rig::{End, link},
        },
        transport::{SpinLimit, Tuning},
    };

    /// Makes a host's event loop with one lane, which looks for `looks` before it sleeps, and a
    /// plugin.
    fn event_loop(looks: Duration) -> (Loop, End) {
        let [host, plugin] = link(Terms::new(1, 1, None, None));
        let tuning = Tuning {
            spin_us: SpinLimit::Fixed(looks),
            ..Tuning::default()
        };
        let options = RelayOptions::new(&tuning, 1);
        let helpers = Arc::new(Helpers::new(options));
        let relay = Relay::with_loop(host.link, None, options, helpers);
        (relay.expect("descriptors").1, plugin)
    }

    #[test]
    fn a_client_that_is_given_the_lane_of_one_that_was_lent_has_not_failed() {
        let (mut event_loop, plugin) = event_loop(Duration::ZERO);
        let clients = [(); 2].map(|()| {
            let (near, far) = UnixStream::pair().expect("sockets");
            near.set_nonblocking(true).expect("a socket");
            let near = RelaySocket::Unix(mio::net::UnixStream::from_std(near));
            event_loop.waiting.push_back((near, Box::new(())));
            far
        });
        // The first has the one lane and is lent; then its socket fails.
        event_loop.open_waiting();
        let failed = Readiness {
            failed: true,
            ..Readiness::default()
        };
        let lent = LaneState::Lent(Missed {
            peer: true,
            socket: Some(failed),
        });
        let LaneState::Open(mut connection) = std::mem::replace(&mut event_loop.lanes[0], lent)
        else {
            panic!("a client was waiting");
        };
        event_loop.lent = 1;
        // The plugin has reset it meanwhile, which the helper finds.
        Lane::new(&plugin.link, 0, 1).finish(State::Reset);
        let progress = connection.on_peer();
        event_loop.returns.put(Some(Done {
            lane: 0,
            connection,
            progress,
        }));
        event_loop.take_back().expect("no violation");
        assert!(event_loop.waiting.is_empty(), "the second has the lane");
        assert!(matches!(event_loop.lanes[0], LaneState::Open(_)));
        assert_eq!(event_loop.link.counters.tunnels_failed.get(), 1);
        let ended = |client: &UnixStream| {
            let mut space = [0];
            rustix::net::recv(client.as_fd(), &mut space, rustix::net::RecvFlags::DONTWAIT).is_ok()
        };
        assert_eq!(clients.each_ref().map(ended), [true, false]);
    }

    #[test]
    fn what_a_helper_returns_ends_the_looking() {
        let (mut event_loop, _plugin) = event_loop(Duration::from_secs(2));
        event_loop.lent = 1;
        // It comes back after the loop has taken back what there was.
        event_loop.returns.put(None);
        event_loop
            .sleep(&mut Events::with_capacity(1))
            .expect("awake");
        let counters = &event_loop.link.counters;
        let looks = [counters.spins_found.get(), counters.spins_in_vain.get()];
        assert_eq!(looks, [1, 0]);
        event_loop.lent = 0;
    }
}
