//! Goal: each sync edge holds under every interleaving that matters. Method: loom checks them all:
//! `RUSTFLAGS="--cfg loom" cargo test -p shm-ring --release --lib models`
//!
//! Without loom the same models run on threads, many times over. Thread sanitizer and miri use
//! that: they find a missing ordering even if the processor provides it.

use std::hint::black_box;

#[cfg(loom)]
use loom::{cell::UnsafeCell, model, sync::Arc, thread};

#[cfg(not(loom))]
use self::threads::{Arc, UnsafeCell, model, thread};
use super::*;
use crate::{
    bell::Parking,
    notice::{Notice, Ring},
    ready::ReadySet,
    segment::StateWord,
    words::HeapWords,
};

const LAYOUT: RingLayout = RingLayout {
    published: 0,
    consumed: 1,
    waits: 2,
    entries: 3,
    capacity: 2,
};

#[cfg(not(loom))]
mod threads {
    pub(super) use std::{sync::Arc, thread};

    const ROUNDS: usize = if cfg!(miri) { 20 } else { 500 };

    pub(super) fn model(run: impl Fn()) {
        (0..ROUNDS).for_each(|_| run());
    }

    /// Has the methods of loom's cell.
    pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

/// Bytes that are not atomic: a model fails if reading and writing them can coincide.
struct Bytes(UnsafeCell<u32>);

// SAFETY: one thread at a time reaches the bytes, which is what the models check.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|bytes| unsafe { black_box(*bytes) })
    }

    fn write(&self, value: u32) {
        // SAFETY: as above.
        self.0.with_mut(|bytes| unsafe { *bytes = value });
    }
}

/// Bytes are written before the descriptor that names them is seen (E1), and read before they are
/// overwritten (E2).
#[test]
fn bytes_are_there_with_their_descriptor() {
    model(|| {
        let words = HeapWords::new(6);
        let bytes = Arc::new([Bytes::new(), Bytes::new()]);
        let mut sender = Sender::new(words.clone(), LAYOUT);
        let mut receiver = Receiver::new(words, LAYOUT);
        let theirs = bytes.clone();
        let sending = thread::spawn(move || {
            for number in 1..=3_u32 {
                // The slot is free once its old descriptor was released.
                while sender.room() == 0 {
                    sender.refresh().expect("honest");
                    thread::yield_now();
                }
                theirs[number as usize % 2].write(number);
                let sent = Descriptor::Buffer {
                    offset: number,
                    length: 0,
                };
                sender.push(sent).expect("room");
            }
        });
        for number in 1..=3_u32 {
            while receiver.pending().expect("honest") == 0 {
                thread::yield_now();
            }
            let found = receiver.peek(0).expect("honest");
            let expected = Descriptor::Buffer {
                offset: number,
                length: 0,
            };
            assert_eq!(found, Some(expected));
            assert_eq!(bytes[number as usize % 2].read(), number);
            receiver.release(1);
        }
        sending.join().expect("no panic");
    });
}

/// A lane that both sides are done with begins anew (E6): nobody sees a count of its last use.
#[test]
fn a_lane_begins_anew() {
    const FIRST: u64 = 1;
    const SECOND: u64 = 2;
    fn wait(state: &StateWord<HeapWords>, value: u64) {
        while state.read() != value {
            thread::yield_now();
        }
    }
    model(|| {
        let words = HeapWords::new(7);
        let states = [5, 6].map(|index| StateWord::new(words.clone(), index));
        let [host, plugin] = states.clone();
        let theirs = words.clone();
        let plugin_runs = thread::spawn(move || {
            let mut receiver = Receiver::new(theirs.clone(), LAYOUT);
            while receiver.pending().expect("honest") == 0 {
                thread::yield_now();
            }
            receiver.release(1);
            plugin.publish(FIRST);
            wait(&host, SECOND);
            let mut receiver = Receiver::new(theirs, LAYOUT);
            assert_eq!(receiver.pending(), Ok(0));
        });
        let [host, plugin] = states;
        let mut sender = Sender::new(words.clone(), LAYOUT);
        sender.push(Descriptor::End).expect("room");
        wait(&plugin, FIRST);
        LAYOUT.clear(&words);
        let mut sender = Sender::new(words, LAYOUT);
        host.publish(SECOND);
        assert_eq!(sender.refresh(), Ok(0));
        plugin_runs.join().expect("no panic");
    });
}

/// A side that is done with a lane, and reads the other end's count once more, may find a count of
/// the lane's next use. Then it also finds that the other end is done (E7).
#[test]
fn what_is_found_in_a_lane_that_begins_anew_is_known_to_be_void() {
    const DONE: u64 = 1;
    model(|| {
        let words = HeapWords::new(8);
        let [host, plugin] = [5, 6].map(|index| StateWord::new(words.clone(), index));
        let mut sender = Sender::new(words.clone(), LAYOUT);
        let mut receiver = Receiver::new(words.clone(), LAYOUT);
        sender.push(Descriptor::End).expect("room");
        assert_eq!(receiver.pending(), Ok(1));
        receiver.release(1);
        assert_eq!(sender.refresh(), Ok(1));
        let [hosts_state, plugins_state] = [host.clone(), plugin.clone()];
        let host_runs = thread::spawn(move || {
            hosts_state.publish(DONE);
            while plugins_state.read() != DONE {
                thread::yield_now();
            }
            LAYOUT.clear(&words);
        });
        plugin.publish(DONE);
        let found = sender.refresh();
        assert!(found == Ok(0) || host.read() == DONE, "{found:?}");
        host_runs.join().expect("no panic");
    });
}

/// A sender that waits for room is told (E3): it finds the room, or the receiver finds its request.
#[test]
fn a_wish_for_room_is_not_lost() {
    model(|| {
        let words = HeapWords::new(6);
        let mut sender = Sender::new(words.clone(), LAYOUT);
        let mut receiver = Receiver::new(words, LAYOUT);
        sender.push(Descriptor::End).expect("room");
        sender.push(Descriptor::End).expect("room");
        let receiving = thread::spawn(move || {
            assert_eq!(receiver.pending(), Ok(2));
            receiver.release(2)
        });
        let found = sender.wait_for_room().expect("honest");
        let told = receiving.join().expect("no panic");
        assert!(told || found == 2);
    });
}

/// No sleeper misses a mark (E4, E5): it finds the lane, or the ringer finds the sleeper parked.
#[test]
fn no_wake_up_is_lost() {
    model(|| {
        let words = HeapWords::new(4);
        let set = ReadySet::new(words.clone(), 0, 1);
        let parking = Parking::new(words.clone(), 2);
        let (ringers_set, ringers_parking) = (set.clone(), parking.clone());
        let payload = words.clone();
        let ringer = thread::spawn(move || {
            payload.word(3).store(1, Relaxed);
            let notice = Notice::new(ringers_set, ringers_parking);
            notice.mark(0);
            notice.ring() == Ring::Must
        });
        parking.park();
        let asleep = set.is_empty();
        let rung = ringer.join().expect("no panic");
        assert!(!asleep || rung, "asleep, and not woken");
        parking.unpark();
        let mut taken = Vec::new();
        set.take(&mut taken);
        assert_eq!(taken, [0]);
        assert_eq!(words.word(3).load(Relaxed), 1);
    });
}

/// A mark of one thread wakes a sleeping peer when another thread rings (E8), now or the next time.
#[test]
fn a_mark_of_another_thread_is_rung() {
    model(|| {
        let words = HeapWords::new(3);
        let set = ReadySet::new(words.clone(), 0, 1);
        let parking = Parking::new(words, 2);
        let notice = Arc::new(Notice::new(set.clone(), parking.clone()));
        let (marking, ringing) = (notice.clone(), notice.clone());
        let marker = thread::spawn(move || marking.mark(0));
        let ringer = thread::spawn(move || ringing.ring());
        parking.park();
        let asleep = set.is_empty();
        marker.join().expect("no panic");
        let rung = ringer.join().expect("no panic") == Ring::Must;
        // Whoever marks makes sure that somebody rings afterwards.
        let rung = notice.ring() == Ring::Must || rung;
        assert!(!asleep || rung, "asleep, and not woken");
        assert_eq!(notice.ring(), Ring::Nothing, "rung for nothing");
    });
}

/// A lane that is marked while the set is emptied is taken now or later, with what came before it.
#[test]
fn no_lane_is_lost_while_others_are_taken() {
    model(|| {
        let words = HeapWords::new(4);
        let set = ReadySet::new(words.clone(), 0, 2);
        let (marking, payload) = (set.clone(), words.clone());
        let marker = thread::spawn(move || {
            marking.mark(0);
            payload.word(3).store(1, Relaxed);
            marking.mark(1);
        });
        let mut taken = Vec::new();
        set.take(&mut taken);
        if taken.contains(&1) {
            assert_eq!(words.word(3).load(Relaxed), 1);
        }
        marker.join().expect("no panic");
        set.take(&mut taken);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
    });
}
