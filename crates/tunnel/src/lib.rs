//! The data plane: carries TCP connections between a host and a plugin over a transport.
//!
//! ```text
//! client ── TCP ──► host ══ transport ══► plugin ─┬─ in process ─► origin router
//!                                                 └─ TCP or Unix ─► any upstream
//! ```
//!
//! Byte-transparent: what a client sends arrives, in order and unchanged, half-closes and resets
//! included; nothing here knows HTTP. [`transport`] is the one place where transports are told
//! apart on the command line; [`counters`] is what is counted; `framed` carries many connections as
//! frames over one rapace transport, and `ring` as lanes in shared memory.
#![forbid(unsafe_code)]

pub mod admin;
mod copy;
pub mod counters;
mod framed;
pub mod host;
#[cfg(any(test, fuzzing))]
pub mod hostile;
mod local;
pub mod plugin;
mod rendezvous;
mod ring;
pub mod transport;

pub use framed::Slots;
