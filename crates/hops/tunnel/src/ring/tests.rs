//! Goal: whatever a peer writes into the segment, the other side goes on or ends the session with
//! an error; it never panics, hangs or keeps a client waiting.
//! Method: the peer is a thread that does what a peer may do, and writes random words through the
//! memory file in between, while connections send and receive. A fault that takes a particular move
//! has a test of its own.

mod bells;
pub(in crate::ring) mod rig;

use std::{
    fs::File,
    io::{IoSlice, Read as _, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
};

use rustix::fs::{OFlags, fcntl_setfl};
use shm_ring::{Segment, Side};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Terms,
    hostile::{Attacked, MOVE_BYTES, attack_host, attack_plugin, terms},
    lane::{Lane, TURN_CALLS, Written},
};
use crate::hostile::{RUNTIME, WATCHDOG, made_up, rounds};

/// Number of moves in a session.
const MOVES: usize = 400;

/// Makes up the moves of a session.
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

#[test]
fn a_lane_that_is_never_empty_has_its_turn_and_no_more() {
    const SENT: usize = 1000;
    let [host, plugin] = rig::link(Terms::new(1, 1, Some(1024), None));
    let (host, plugin) = (host.link, plugin.link);
    let mut receiving = Lane::open(&host, 0, 1);
    let mut sending = Lane::new(&plugin, 0, 1);
    for _ in 0..SENT {
        let sent = sending.send(&[IoSlice::new(b"x")]).expect("no violation");
        assert_eq!(sent, 1);
    }
    let (mut near, far) = UnixStream::pair().expect("sockets");
    far.set_nonblocking(true).expect("a socket");
    let mut ready = Vec::new();
    let mut turns = 0;
    loop {
        host.ready.take(&mut ready);
        assert_eq!(ready, [0], "to be looked at after {turns} turns");
        ready.clear();
        turns += 1;
        if receiving.write_to(far.as_fd()).expect("written") == Written::All {
            break;
        }
    }
    assert!(turns > SENT / (TURN_CALLS * TURN_CALLS), "{turns} turns");
    host.ready.take(&mut ready);
    assert!(ready.is_empty(), "there is no more");
    near.read_exact(&mut [0; SENT]).expect("all of it");
}

#[test]
fn a_peer_that_stops_a_relay_by_its_bell_has_its_own_session_alone() {
    RUNTIME.block_on(async {
        let (host, [memory, _, bell]) = Attacked::start(1).await;
        // The bell is full, so the next ring blocks. There is one, since the peer says that it
        // sleeps.
        fcntl_setfl(&bell, OFlags::empty()).expect("a file");
        let full = (u64::MAX - 1).to_ne_bytes();
        File::from(bell).write_all(&full).expect("room");
        let segment = Segment::open(&memory, terms().geometry()).expect("laid out");
        segment.parking(Side::Plugin).park();
        let mut client = host.connect();
        client.write_all(b"nobody will answer").await.expect("room");
        while host.counters.doorbells_sent.get() == 0 {
            tokio::task::yield_now().await;
        }
        let ended = host.leave().await;
        assert!(ended.is_ok(), "{ended:?}");
        let told = timeout(WATCHDOG, client.read_to_end(&mut Vec::new())).await;
        assert!(told.is_ok(), "the client was kept waiting");
    });
}
