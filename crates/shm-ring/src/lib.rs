//! Rings, an arena and doorbells in memory that two processes share. All unsafe code of the
//! workspace.
//!
//! Two processes, the *host* and the *plugin*, map one segment. A *lane* of it carries one
//! connection: in each direction a ring of [`Descriptor`]s, each of which names bytes in the
//! lane's own buffer or in the sender's [`Arena`]. Which lanes have work is told by a
//! [`ReadySet`], and a process that sleeps is woken by a [`Bell`], and only then: [`Notice`] has
//! both for whoever tells.
//!
//! What can be relied on, whatever the peer does:
//! - A number read from shared memory is checked once, where it is read ([`Violation`]), and what
//!   was checked is what is used.
//! - No reference is made to bytes that the peer can write. They are reached by raw pointer only,
//!   in system calls and copies ([`io`]).
//! - Who owns what is private to its owner: the peer can neither free nor leak anything of ours.
//!
//! `docs/SHM.md` has the picture of the memory and the table of synchronisation edges; the edges'
//! names (E1 …) stand at the orderings.
#![allow(unsafe_code)]

mod arena;
mod bell;
pub mod io;
mod mapping;
mod notice;
mod ready;
mod ring;
mod schedule;
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
    schedule::run_in_batches,
    segment::{Geometry, Segment, SegmentError, Side, StateWord},
    spans::{Span, Spans},
    words::{HeapWords, MappedWords, Words},
};
