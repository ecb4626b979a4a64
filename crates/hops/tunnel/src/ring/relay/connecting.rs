//! Connects lanes that the host has opened to the upstream, on the plugin's side.

use std::{collections::VecDeque, io, time::Instant};

use shm_ring::Side;

use super::{
    super::{lane::Lane, socket::RelaySocket},
    Guard, LaneState, Loop, Progress, State, refuse,
};
use crate::local::{self, CONNECT_RETRY};

/// The lanes that are being connected.
#[derive(Default)]
pub(super) struct Connecting {
    /// Deadline, index and generation of lanes whose upstream has not accepted yet. Oldest first.
    begun: VecDeque<(Instant, usize, u64)>,
    /// Lanes whose upstream's backlog is full, oldest first.
    blocked: VecDeque<Blocked>,
    /// When to retry the blocked ones.
    retry: Option<Instant>,
}

/// A lane whose connection can't begin: the backlog of the upstream's Unix socket is full. No event
/// tells when it has room again.
struct Blocked {
    deadline: Instant,
    index: usize,
    generation: u64,
    guard: Guard,
}

impl Connecting {
    /// Forgets the blocked lanes: the peer has gone, and so have its clients.
    pub(super) fn forget_blocked(&mut self) {
        self.blocked.clear();
        self.retry = None;
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let begun = self.begun.front().map(|(deadline, ..)| *deadline);
        [begun, self.retry].into_iter().flatten().min()
    }
}

impl Loop {
    /// Connects a lane that the host may have opened.
    pub(super) fn serve_or_connect(&mut self, index: usize) {
        let host = self.link.segment.state(index, Side::Host).read();
        let (generation, state) = Lane::decode(host);
        if generation <= self.generations[index] {
            return;
        }
        self.generations[index] = generation;
        let Some(upstream) = &self.upstream else {
            return;
        };
        let deadline = Instant::now() + upstream.connect_timeout;
        match (state, (upstream.guard)()) {
            (State::Open | State::Closed, Some(guard)) => {
                let blocked = &mut self.connecting.blocked;
                // Whatever this lane was opened for before is over.
                blocked.retain(|other| other.index != index);
                // It comes after those that came before.
                blocked.push_back(Blocked {
                    deadline,
                    index,
                    generation,
                    guard,
                });
                if blocked.len() == 1 {
                    self.begin_blocked();
                }
            }
            _ => refuse(Lane::new(&self.link, index, generation)),
        }
    }

    /// Begins to connect the blocked lanes, as far as the upstream's backlog has room.
    fn begin_blocked(&mut self) {
        self.connecting.retry = None;
        while self.connecting.retry.is_none()
            && let Some(first) = self.connecting.blocked.pop_front()
        {
            self.begin(first);
        }
    }

    /// Begins to connect a lane, if the upstream's backlog has room.
    fn begin(&mut self, it: Blocked) {
        let Some(upstream) = &self.upstream else {
            return;
        };
        let (index, generation) = (it.index, it.generation);
        let lane = Lane::new(&self.link, index, generation);
        match RelaySocket::connect(&upstream.address) {
            Ok(socket) => {
                self.connecting
                    .begun
                    .push_back((it.deadline, index, generation));
                self.connect(index, lane, socket, it.guard);
            }
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < it.deadline =>
            {
                self.connecting.blocked.push_front(it);
                self.connecting.retry = Some(Instant::now() + CONNECT_RETRY);
            }
            Err(error) => {
                local::warn_unreachable(&upstream.address, error);
                self.link.counters.tunnels_failed.add(1);
                refuse(lane);
            }
        }
    }

    /// Refuses the blocked lanes whose clients have gone.
    fn forget_gone(&mut self) {
        let link = &self.link;
        self.connecting.blocked.retain(|it| {
            let host = link.segment.state(it.index, Side::Host).read();
            let wanted = matches!(
                Lane::decode(host),
                (generation, State::Open | State::Closed) if generation == it.generation
            );
            if !wanted {
                refuse(Lane::new(link, it.index, it.generation));
            }
            wanted
        });
    }

    /// Retries the blocked lanes, ends those that have been connecting for too long, and forgets
    /// those that are connected.
    pub(super) fn go_on_connecting(&mut self) {
        let now = Instant::now();
        if self.connecting.retry.is_some_and(|retry| retry <= now) {
            self.forget_gone();
            self.begin_blocked();
        }
        while let Some((deadline, index, generation)) = self.connecting.begun.front().copied() {
            let late = deadline <= now;
            let connecting = match &self.lanes[index] {
                LaneState::Open(connection) => {
                    generation == self.generations[index] && !connection.is_connected()
                }
                LaneState::Free | LaneState::Closing(_) | LaneState::Lent(_) => false,
            };
            if connecting && !late {
                return;
            }
            self.connecting.begun.pop_front();
            if connecting {
                let address = self.upstream.as_ref().map(|it| it.address.to_string());
                tracing::warn!(address, "the upstream did not accept a connection in time");
                self.after(index, Progress::Failed);
            }
        }
    }
}
