//! The counters of the tunnel's processes.

use std::sync::Arc;

use service::counters::{CounterReading, Source};

service::counters! {
    /// Counters of one process, for all its sessions since it started.
    pub struct Counters, "tunnel_" {
        /// payload bytes handed to the peer process by reference, without a copy in user space
        zero_copy_bytes: Counter, "bytes";
        /// payload bytes copied in user space; a byte copied twice counts twice
        copied_bytes: Counter, "bytes";
        /// payload bytes taken from clients (host) or from the origin (plugin)
        bytes_in: Counter, "bytes";
        /// payload bytes given to clients (host) or to the origin (plugin)
        bytes_out: Counter, "bytes";
        /// tunnels opened
        tunnels_opened: Counter, "tunnels";
        /// tunnels open now
        tunnels_open: Gauge, "tunnels";
        /// tunnels that ended with a reset or could not be connected
        tunnels_failed: Counter, "tunnels";
        /// clients turned away because no peer was attached, or that could not be passed (handoff)
        clients_refused: Counter, "clients";
        /// times the listener stopped accepting because --max-connections was reached
        accept_stalls: Counter, "stalls";
        /// peers attached
        sessions: Counter, "sessions";
        /// frames sent to the peer; clients (host) or ends of connections (plugin) on handoff
        frames_sent: Counter, "frames";
        /// frames received from the peer; ends of connections (host) or clients (plugin) on handoff
        frames_received: Counter, "frames";
        /// times a sender waited because the ring, the slots or the socket to the peer were full
        ring_full_stalls: Counter, "stalls";
        /// system calls to wake the peer: writes (stream, handoff), futex wakes (shm), eventfd
        /// writes (ring)
        doorbells_sent: Counter, "doorbells";
        /// doorbells saved: frames sent with another one (stream, handoff), or the peer was awake
        /// (ring)
        doorbells_suppressed: Counter, "doorbells";
        /// times the receiver woke up from waiting for the peer
        wake_ups: Counter, "wake-ups";
        /// times looking again before sleeping found work (ring)
        spins_found: Counter, "spins";
        /// times looking again before sleeping found no work (ring)
        spins_in_vain: Counter, "spins";
    }
}

/// Counters of what a process doesn't see on handoff if the other one has the sockets.
const OF_BYTES: [&str; 4] = [
    "tunnel_zero_copy_bytes",
    "tunnel_copied_bytes",
    "tunnel_bytes_in",
    "tunnel_bytes_out",
];

/// The counters without those of what this process doesn't see. They would be 0, which is wrong.
#[derive(Debug)]
struct Seen {
    counters: Arc<Counters>,
    unseen: &'static [&'static str],
}

impl Counters {
    /// Returns those that a process shows.
    pub(crate) fn shown(self: &Arc<Self>, sees_bytes: bool) -> Arc<impl Source + use<>> {
        let unseen = if sees_bytes { &[] } else { &OF_BYTES[..] };
        Arc::new(Seen {
            counters: self.clone(),
            unseen,
        })
    }
}

impl Source for Seen {
    fn readings(&self) -> Vec<CounterReading> {
        let mut readings = self.counters.readings();
        readings.retain(|reading| !self.unseen.contains(&reading.name));
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_no_bytes_shows_none() {
        let counters = Arc::new(Counters::default());
        let names = |sees_bytes| {
            let readings = counters.shown(sees_bytes).readings();
            let names = readings.into_iter().map(|reading| reading.name);
            names.collect::<Vec<_>>()
        };
        let (all, seen) = (names(true), names(false));
        let missing = all.iter().filter(|name| !seen.contains(name));
        assert!(missing.eq(&OF_BYTES));
    }
}
