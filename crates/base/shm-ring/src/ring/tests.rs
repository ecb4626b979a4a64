//! Goal: a ring is a bounded queue, and a peer that lies is caught.
//! Method: random operations beside an oracle, and random lies.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::words::HeapWords;

const LAYOUT: RingLayout = RingLayout {
    published: 0,
    consumed: 1,
    waits: 2,
    entries: 3,
    capacity: 4,
};

fn ring() -> (HeapWords, Sender<HeapWords>, Receiver<HeapWords>) {
    let words = HeapWords::new(7);
    let (sender, receiver) = (
        Sender::new(words.clone(), LAYOUT),
        Receiver::new(words.clone(), LAYOUT),
    );
    (words, sender, receiver)
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Push(Descriptor),
    Refresh,
    Wait,
    Pending,
    Release(usize),
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let length = 0..=Descriptor::LENGTH_MAX;
    prop_oneof![
        (any::<u32>(), length.clone())
            .prop_map(|(offset, length)| Descriptor::Arena { offset, length }),
        (any::<u32>(), length).prop_map(|(offset, length)| Descriptor::Buffer { offset, length }),
        Just(Descriptor::End),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => descriptor().prop_map(Operation::Push),
        1 => Just(Operation::Refresh),
        1 => Just(Operation::Wait),
        3 => Just(Operation::Pending),
        3 => (0_usize..5).prop_map(Operation::Release),
    ]
}

proptest! {
    #[test]
    fn a_ring_is_a_bounded_queue(operations in prop::collection::vec(operation(), 1..200)) {
        let (_words, mut sender, mut receiver) = ring();
        let mut oracle = VecDeque::new();
        // Released but not yet seen by the sender; seen by the receiver; whether the sender waits.
        let (mut unseen, mut seen, mut waits) = (0, 0, false);
        for operation in operations {
            match operation {
                Operation::Push(descriptor) => {
                    let pushed = sender.push(descriptor);
                    if oracle.len() + unseen < LAYOUT.capacity {
                        prop_assert_eq!(pushed, Ok(()));
                        oracle.push_back(descriptor);
                    } else {
                        prop_assert_eq!(pushed, Err(descriptor));
                    }
                }
                Operation::Refresh => {
                    prop_assert_eq!(sender.refresh(), Ok(unseen));
                    unseen = 0;
                }
                Operation::Wait => {
                    prop_assert_eq!(sender.wait_for_room(), Ok(unseen));
                    (unseen, waits) = (0, true);
                }
                Operation::Pending => {
                    prop_assert_eq!(receiver.pending(), Ok(oracle.len()));
                    seen = oracle.len();
                    for (ahead, expected) in oracle.iter().enumerate() {
                        prop_assert_eq!(receiver.peek(ahead), Ok(Some(*expected)));
                    }
                    prop_assert_eq!(receiver.peek(seen), Ok(None));
                }
                Operation::Release(count) => {
                    let count = count.min(seen);
                    prop_assert_eq!(receiver.release(count), waits);
                    oracle.drain(..count);
                    (seen, unseen) = (seen - count, unseen + count);
                }
            }
            prop_assert_eq!(sender.in_flight(), oracle.len() + unseen);
        }
    }

    /// Whatever the peer writes, and wherever: the result is an error or in range, never a panic.
    #[test]
    fn lies_are_caught(lies in prop::collection::vec((0_usize..7, any::<u64>()), 1..20)) {
        let (words, mut sender, mut receiver) = ring();
        for (word, lie) in lies {
            let _ = sender.push(Descriptor::End);
            words.word(word).store(lie, Relaxed);
            if let Ok(pending) = receiver.pending() {
                prop_assert!(pending <= LAYOUT.capacity);
                for ahead in 0..pending {
                    let _ = receiver.peek(ahead);
                }
                receiver.release(pending);
            }
            let _ = sender.refresh();
            prop_assert!(sender.in_flight() <= LAYOUT.capacity);
        }
    }
}

#[test]
fn a_count_that_goes_back_is_caught() {
    let (words, mut sender, mut receiver) = ring();
    for _ in 0..3 {
        sender.push(Descriptor::End).expect("room");
    }
    assert_eq!(receiver.pending(), Ok(3));
    words.word(0).store(2, Relaxed);
    assert!(matches!(
        receiver.pending(),
        Err(Violation::Published { .. })
    ));
    words.word(1).store(4, Relaxed);
    assert_eq!(
        sender.refresh(),
        Err(Violation::Consumed { found: 4, sent: 3 })
    );
    // An end that has an offset.
    let odd = (2 << 62) | 1;
    words.word(3).store(odd, Relaxed);
    words.word(0).store(3, Relaxed);
    assert_eq!(receiver.peek(0), Err(Violation::Kind(odd)));
}
