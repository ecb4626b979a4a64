//! Goal: whatever a peer writes into the segment, the other side goes on or ends the session with
//! an error; it never panics, hangs or keeps a client waiting.
//! Method: the peer is a thread that does what a peer may do, and writes random words through the
//! memory file in between, while connections send and receive. What takes a particular move has a
//! test of its own.

use std::{
    io::{IoSlice, Read as _, Write as _},
    os::fd::AsFd,
    sync::Arc,
};

use rustix::fs::{OFlags, fcntl_setfl};
use shm_ring::{Arena, Segment, Side};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    hostile::{MOVE_BYTES, attack_host, attack_plugin},
    lane::{Lane, TURN_CALLS, Written},
    *,
};
use crate::{
    counters::Counters,
    framed::LocalSocket,
    hostile::{RUNTIME, WATCHDOG, made_up, rounds},
    transport::SpinLimit,
};

const ARENA_BYTES: usize = 1 << 20;

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

#[test]
fn a_lane_that_is_never_empty_has_its_turn_and_no_more() {
    const SENT: usize = 1000;
    let terms = Terms::new(1, 1, Some(1024), None);
    let counters = Arc::new(Counters::default());
    let (offer, descriptors) = Offer::new(terms).expect("memory");
    let (arena, file) = Arena::create(ARENA_BYTES).expect("memory");
    let host = offer
        .accept((&file, ARENA_BYTES), &counters)
        .expect("an arena");
    let plugin = Link::of_offer(terms, descriptors, arena, &counters).expect("laid out");
    let (host, plugin) = (Arc::new(host), Arc::new(plugin));
    let mut receiving = Lane::open(&host, 0, 1);
    let mut sending = Lane::new(&plugin, 0, 1);
    for _ in 0..SENT {
        let sent = sending.send(&[IoSlice::new(b"x")]).expect("no violation");
        assert_eq!(sent, 1);
    }
    let (mut near, far) = std::os::unix::net::UnixStream::pair().expect("sockets");
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
        let terms = Terms::new(1, 4, None, None);
        let counters = Arc::new(Counters::default());
        let (offer, [memory, _, bell]) = Offer::new(terms).expect("memory");
        let (_arena, file) = Arena::create(ARENA_BYTES).expect("memory");
        let link = offer.accept((&file, ARENA_BYTES), &counters);
        let link = Arc::new(link.expect("an arena"));
        let used = Arc::downgrade(&link);
        // The next ring waits, and there is one: the peer says that it sleeps.
        fcntl_setfl(&bell, OFlags::empty()).expect("a file");
        let full = (u64::MAX - 1).to_ne_bytes();
        let mut bell = std::fs::File::from(bell);
        bell.write_all(&full).expect("room");
        let segment = Segment::open(&memory, terms.geometry()).expect("laid out");
        segment.parking(Side::Plugin).park();

        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let (_stop, stopped) = watch::channel(false);
        let (give, given) = oneshot::channel();
        let options = RelayOptions::new(SpinLimit::Auto, 1);
        let running = tokio::spawn(run_relays(
            vec![link],
            None,
            options,
            ours,
            stopped,
            move |relays| drop(give.send(relays)),
        ));
        let (near, mut far) = UnixStream::pair().expect("sockets");
        let socket = RelaySocket::try_from(LocalSocket::Unix(near)).expect("a socket");
        given.await.expect("started").give(socket, Box::new(()));
        far.write_all(b"nobody will answer").await.expect("room");
        while counters.doorbells_sent.get() == 0 {
            tokio::task::yield_now().await;
        }
        drop(theirs);
        let ended = timeout(WATCHDOG, running).await.expect("it ends");
        assert!(matches!(ended, Ok(Ok(()))), "{ended:?}");
        let told = timeout(WATCHDOG, far.read_to_end(&mut Vec::new())).await;
        assert!(told.is_ok(), "the client was kept waiting");
        let forgotten = async {
            while used.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        let forgotten = timeout(WATCHDOG, forgotten).await;
        assert!(forgotten.is_ok(), "a relay was left over");
    });
}
