//! Goal: whatever a peer writes into the segment, the other side goes on or ends the session with
//! an error; it never panics, hangs or keeps a client waiting.
//! Method: the peer is a thread that does what a peer may do, and writes random words through the
//! memory file in between, while connections send and receive.

use super::hostile::{MOVE_BYTES, attack_host, attack_plugin};

/// Moves in a session.
const MOVES: usize = 400;

/// Sessions per side; `HOPBENCH_HOSTILE_ROUNDS` for more.
fn rounds() -> u64 {
    let text = std::env::var("HOPBENCH_HOSTILE_ROUNDS").ok();
    text.map_or(60, |text| text.parse().expect("a number"))
}

/// Moves that are made up.
fn moves(seed: u64) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
    };
    (0..MOVES * MOVE_BYTES).map(|_| next()).collect()
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
