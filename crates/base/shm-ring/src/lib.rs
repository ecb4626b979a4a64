//! Rings, an arena and doorbells in memory that two processes share. All unsafe code of the
//! workspace is in this crate.
//!
//! Two processes, the *host* and the *plugin*, map one segment. A *lane* of it carries one
//! connection: in each direction a ring of [`Descriptor`]s, each of which names bytes in the
//! lane's own buffer or in the sender's [`Arena`]. A [`ReadySet`] tells which lanes have work. A
//! [`Bell`] wakes the peer, but only if it sleeps. A [`Notice`] marks lanes for the peer and says
//! whether to ring.
//!
//! These guarantees hold whatever the peer does:
//! - A number read from shared memory is checked once, where it is read ([`Violation`]). Only the
//!   checked value is used.
//! - No reference is made to bytes that the peer can write. They are reached by raw pointer only,
//!   in system calls and copies ([`io`]).
//! - Ownership is recorded in the owner's private memory: the peer can neither free nor leak
//!   anything of ours.
//!
//! `docs/SHM.md` shows the layout of the memory and lists the synchronisation edges. A comment at
//! each ordering names its edge (E1 …).
#![allow(unsafe_code)]

mod arena;
mod bell;
pub mod file;
pub mod io;
mod mapping;
mod notice;
mod ready;
mod ring;
mod segment;
pub mod socket;
mod spans;
mod sync;
mod words;

pub use self::{
    arena::{Arena, ArenaView, Lease, Writable},
    bell::{Bell, Parking},
    mapping::{check_size_sealed, seal_size},
    notice::{Notice, Ring},
    ready::ReadySet,
    ring::{Descriptor, Receiver, RingLayout, Sender, Violation},
    segment::{Geometry, Segment, SegmentError, Side, StateWord},
    spans::{Span, Spans},
    words::{HeapWords, MappedWords, Words},
};
