//! Counters that several nodes raise at once and that agree in the end: PN-counters.
//!
//! Each node is an *actor* with counts of its own, ups and downs, which only grow. The value is the
//! sum over all actors. A merge takes the larger count of each actor, so it doesn't matter in which
//! order states arrive, how often, and by which way: [`State`].
//!
//! A node that starts again is a new actor, so it never has to remember how far it had counted.
//! The counts of the old one stay as they are. They need no compaction that nodes would have to
//! agree on: every counter belongs to a window of time, and goes with all of its actors when the
//! window is over, on every node, and what comes late for it is refused: [`Store`].
//!
//! [`Exchange`] says what to send to whom; [`wire`] says how it is written. Neither does IO.

mod counter;
mod gossip;
mod log;
mod state;
mod store;
pub mod wire;

#[cfg(test)]
mod simulation;

pub use counter::PnCounter;
pub use gossip::{Exchange, Heard, Refused};
pub use state::{ACTORS_MAX, ActorId, COUNT_MAX, Merged, State, Totals};
pub use store::{Applied, Item, Kind, LENGTH_MS_MAX, LENGTH_MS_MIN, Slot, Store, StoreCounts};
