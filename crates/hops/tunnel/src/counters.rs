//! The counters of the tunnel's processes.

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
        /// clients turned away because no peer was attached
        clients_refused: Counter, "clients";
        /// times the listener stopped accepting because --max-connections was reached
        accept_stalls: Counter, "stalls";
        /// peers attached
        sessions: Counter, "sessions";
        /// frames sent to the peer
        frames_sent: Counter, "frames";
        /// frames received from the peer
        frames_received: Counter, "frames";
        /// times a sender waited because the ring, the slots or the socket to the peer were full
        ring_full_stalls: Counter, "stalls";
        /// system calls to wake the peer: writes (stream), futex wakes (shm), eventfd writes (ring)
        doorbells_sent: Counter, "doorbells";
        /// doorbells saved: frames sent with another one (stream), or the peer was awake (ring)
        doorbells_suppressed: Counter, "doorbells";
        /// times the receiver woke up from waiting for the peer
        wake_ups: Counter, "wake-ups";
        /// times looking again before sleeping found work (ring)
        spins_found: Counter, "spins";
        /// times looking again before sleeping found no work (ring)
        spins_in_vain: Counter, "spins";
    }
}
