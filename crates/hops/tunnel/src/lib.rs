//! The data plane: carries TCP connections between a host and a plugin over a transport.
//!
//! ```text
//! client ── TCP ──► host ══ transport ══► plugin ─┬─ in process ─► origin router
//!                                                 └─ TCP or Unix ─► any upstream
//! ```
//!
//! The tunnel is byte-transparent: what a client sends arrives in order and unchanged, half-closes
//! and resets included. Nothing here knows HTTP. [`transport`] has the command-line options of all
//! transports, and [`counters`] the counters. `framed` carries many connections as frames over one
//! rapace transport, and `ring` carries them as lanes in shared memory. `handoff` carries nothing:
//! it passes the clients' sockets themselves.
#![forbid(unsafe_code)]

mod copy;
pub mod counters;
mod framed;
mod handoff;
pub mod host;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod local;
pub mod plugin;
mod rendezvous;
mod ring;
pub mod transport;

pub use framed::Slots;
