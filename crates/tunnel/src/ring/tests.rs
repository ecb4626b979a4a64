//! Goal: whatever a peer writes into the segment, the other side goes on or ends the session with
//! an error; it never panics, hangs or keeps a client waiting.
//! Method: the peer is a thread that does what a peer may do, and writes random words through the
//! memory file in between, while connections send and receive.

use super::hostile::{MOVE_BYTES, attack_host, attack_plugin};
use crate::hostile::{made_up, rounds};

/// Moves in a session.
const MOVES: usize = 400;

/// Moves that are made up.
fn moves(seed: u64) -> Vec<u8> {
    made_up(seed, MOVES * MOVE_BYTES)
}

#[test]
fn a_host_outlives_whatever_its_plugin_writes() {
    let noticed = (0..rounds()).filter(|seed| attack_host(&moves(*seed)));
    assert!(noticed.count() > 0, "nothing that was written was wrong");
}

#[test]
fn a_plugin_outlives_whatever_its_host_writes() {
    let noticed = (0..rounds()).filter(|seed| attack_plugin(&moves(*seed)));
    assert!(noticed.count() > 0, "nothing that was written was wrong");
}
