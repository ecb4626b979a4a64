//! What the tunnel counts about itself.
//!
//! Always on. One relaxed addition per event: the numbers are read once before and once after a
//! load, and no decision depends on them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use rapace::transport::shm::ShmMetrics;

/// A number that only the owner of a [`Counters`] can change.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

macro_rules! counters {
    ($($(#[doc = $about:literal])+ $name:ident $kind:ident;)+) => {
        /// Counters of one process, for all its sessions since it started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $about])+ pub $name: Counter,)+
            shm: Arc<ShmMetrics>,
        }

        impl Counters {
            /// Name, kind, help and value of each, in a fixed order.
            fn own(&self) -> Vec<Reading> {
                vec![$(Reading {
                    name: concat!("tunnel_", stringify!($name)),
                    kind: stringify!($kind),
                    about: concat!($($about),+).trim(),
                    value: self.$name.get(),
                },)+]
            }
        }
    };
}

counters! {
    /// payload bytes handed to the peer process by reference, without a copy in user space
    zero_copy_bytes counter;
    /// payload bytes copied in user space; a byte copied twice counts twice
    copied_bytes counter;
    /// payload bytes taken from clients (host) or from the origin (plugin)
    bytes_in counter;
    /// payload bytes given to clients (host) or to the origin (plugin)
    bytes_out counter;
    /// tunnels opened
    tunnels_opened counter;
    /// tunnels open now
    tunnels_open gauge;
    /// tunnels that ended with a reset or could not be connected
    tunnels_failed counter;
    /// clients turned away because no peer was attached
    clients_refused counter;
    /// times the listener stopped accepting because --max-connections was reached
    accept_stalls counter;
    /// peers attached
    sessions counter;
    /// frames sent to the peer
    frames_sent counter;
    /// frames received from the peer
    frames_received counter;
    /// times a sender waited because the ring, the slots or the socket to the peer were full
    ring_full_stalls counter;
    /// wake-ups asked of the kernel for the peer: futex wakes (shm) or writes (stream)
    doorbells_sent counter;
    /// frames that rode along with another frame's doorbell
    doorbells_suppressed counter;
    /// times the receiver woke up from waiting for the peer
    wake_ups counter;
    /// times looking again before sleeping found work (ring)
    spins_found counter;
    /// times it did not
    spins_in_vain counter;
}

/// One counter as it stands.
#[derive(Debug)]
pub struct Reading {
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    pub about: &'static str,
    pub value: u64,
}

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    pub(crate) fn subtract(&self, n: usize) {
        self.0.fetch_sub(n as u64, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    /// All counters, those of rapace's shared-memory sessions included.
    pub fn readings(&self) -> Vec<Reading> {
        let of = |field: fn(&ShmMetrics) -> &AtomicU64| field(&self.shm).load(Relaxed);
        let slots = [
            (
                "tunnel_slots_allocated",
                "slots allocated by rapace",
                of(|m| &m.alloc_success),
            ),
            (
                "tunnel_slots_failed",
                "slot allocations that had to wait",
                of(|m| &m.alloc_failures),
            ),
            (
                "tunnel_slots_freed",
                "slots freed by the receiver",
                of(|m| &m.slot_frees),
            ),
            (
                "tunnel_rapace_ring_full",
                "enqueues that had to wait",
                of(|m| &m.ring_full_errors),
            ),
        ];
        let mut readings = self.own();
        readings.extend(slots.map(|(name, about, value)| Reading {
            name,
            kind: "counter",
            about,
            value,
        }));
        readings
    }

    /// The counters as one JSON object: name to number.
    pub fn to_json(&self) -> serde_json::Value {
        self.readings()
            .into_iter()
            .map(|reading| (reading.name, reading.value))
            .collect()
    }

    /// The counters in Prometheus' text format, version 0.0.4.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for Reading {
            name,
            kind,
            about,
            value,
        } in self.readings()
        {
            text += &format!("# HELP {name} {about}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }

    /// What rapace counts in, the same for every session.
    pub(crate) fn shm(&self) -> Arc<ShmMetrics> {
        self.shm.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_has_help_type_and_value() {
        let counters = Counters::default();
        counters.copied_bytes.add(7);
        let text = counters.to_prometheus();
        assert!(text.contains("# TYPE tunnel_copied_bytes counter\ntunnel_copied_bytes 7\n"));
        assert!(text.contains("# TYPE tunnel_tunnels_open gauge\ntunnel_tunnels_open 0\n"));
    }
}
