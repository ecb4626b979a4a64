//! Goal: two ends that follow the rules never meet a violation, never lose or invent a byte, and
//! never come to a stop with work left. Method: random operations on a pair of flows joined by two
//! queues of frames, against an oracle that counts bytes.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const WINDOW: u32 = 16;

#[derive(Clone, Copy, Debug)]
enum Operation {
    /// An end sends up to that many bytes, as far as credit goes.
    Send(usize, u32),
    /// An end's transport reader takes the next frame.
    Deliver(usize),
    /// An end's socket takes up to that many of the bytes that arrived.
    Take(usize, u32),
    End(usize),
    Reset(usize),
}

struct End {
    flow: Flow,
    /// Frames on their way to this end.
    arriving: VecDeque<(Kind, u32)>,
    /// Bytes that arrived and that the socket has not taken.
    stored: u32,
    sent: u64,
    taken: u64,
    ended: bool,
}

impl End {
    fn new() -> Self {
        let flow = Flow::new(WINDOW, WINDOW);
        Self {
            flow,
            arriving: VecDeque::new(),
            stored: 0,
            sent: 0,
            taken: 0,
            ended: false,
        }
    }
}

fn apply(ends: &mut [End; 2], operation: Operation) -> Result<(), FrameViolation> {
    match operation {
        Operation::Send(at, wanted) => {
            let Sendable::Bytes(credit) = ends[at].flow.sendable() else {
                return Ok(());
            };
            let bytes = wanted.min(credit);
            if ends[at].ended || bytes == 0 {
                return Ok(());
            }
            ends[at].flow.send(bytes);
            ends[at].sent += u64::from(bytes);
            ends[1 - at].arriving.push_back((Kind::Data, bytes));
        }
        Operation::Deliver(at) => {
            let end = &mut ends[at];
            match end.arriving.pop_front() {
                Some((Kind::Data, bytes)) => {
                    if end.flow.receive(bytes)? {
                        end.stored += bytes;
                        assert!(end.stored <= WINDOW, "stored more than a window");
                    }
                }
                Some((Kind::Credit, bytes)) => end.flow.receive_credit(bytes)?,
                Some((Kind::End, _)) => end.flow.receive_end()?,
                Some((Kind::Reset, _)) => drop(end.flow.receive_reset(false)),
                Some((Kind::Open, _)) | None => {}
            }
        }
        Operation::Take(at, wanted) => {
            let bytes = wanted.min(ends[at].stored);
            ends[at].stored -= bytes;
            ends[at].taken += u64::from(bytes);
            if let Some(credit) = ends[at].flow.take(bytes) {
                ends[1 - at].arriving.push_back((Kind::Credit, credit));
            }
        }
        Operation::End(at) => {
            if ends[at].flow.send_end() {
                ends[1 - at].arriving.push_back((Kind::End, 0));
            }
            ends[at].ended = true;
        }
        Operation::Reset(at) => {
            if ends[at].flow.send_reset() {
                ends[1 - at].arriving.push_back((Kind::Reset, 0));
            }
        }
    }
    Ok(())
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let at = 0..2_usize;
    let operation = prop_oneof![
        8 => (at.clone(), 1..40_u32).prop_map(|(at, n)| Operation::Send(at, n)),
        16 => at.clone().prop_map(Operation::Deliver),
        8 => (at.clone(), 1..40_u32).prop_map(|(at, n)| Operation::Take(at, n)),
        1 => at.clone().prop_map(Operation::End),
    ];
    prop::collection::vec(operation, 0..200)
}

proptest! {
    #[test]
    fn every_byte_sent_is_taken_and_nobody_gets_stuck(
        operations in operations(),
        more in 1..200_u32,
    ) {
        let mut ends = [End::new(), End::new()];
        for operation in operations {
            apply(&mut ends, operation).expect("both ends follow the rules");
        }
        // Whatever happened, an end that has not ended can send on once the other end takes what
        // arrives.
        for at in 0..2 {
            let mut left = more;
            while !ends[at].ended && left > 0 {
                settle(&mut ends);
                let before = ends[at].sent;
                apply(&mut ends, Operation::Send(at, left)).expect("sends within credit");
                left -= u32::try_from(ends[at].sent - before).expect("sent at most what was left");
                prop_assert!(ends[at].sent > before, "stuck with {left} bytes to send");
            }
        }
        settle(&mut ends);
        prop_assert_eq!(ends[0].sent, ends[1].taken);
        prop_assert_eq!(ends[1].sent, ends[0].taken);
    }

    #[test]
    fn a_reset_at_any_moment_is_no_violation(operations in operations(), at in 0..2_usize) {
        let mut ends = [End::new(), End::new()];
        for operation in operations {
            apply(&mut ends, operation).expect("both ends follow the rules");
        }
        apply(&mut ends, Operation::Reset(at)).expect("a reset is always allowed");
        settle(&mut ends);
        prop_assert!(ends[at].flow.is_finished());
        prop_assert_eq!(ends[at].flow.sendable(), Sendable::Never);
        prop_assert!(ends[1 - at].flow.is_finished());
    }
}

/// Delivers and takes until nothing is on its way.
fn settle(ends: &mut [End; 2]) {
    while ends
        .iter()
        .any(|end| !end.arriving.is_empty() || end.stored > 0)
    {
        for at in 0..2 {
            apply(ends, Operation::Deliver(at)).expect("both ends follow the rules");
            apply(ends, Operation::Take(at, WINDOW)).expect("taking is always allowed");
        }
    }
}

#[test]
fn a_peer_that_breaks_the_rules_is_named() {
    let mut flow = Flow::new(10, 10);
    assert_eq!(
        flow.receive(11),
        Err(FrameViolation::Overrun {
            sent: 11,
            credit: 10
        })
    );
    assert_eq!(
        flow.receive_credit(1),
        Err(FrameViolation::CreditOverflow { window: 10 })
    );
    flow.send(10);
    assert_eq!(
        flow.receive_credit(u32::MAX),
        Err(FrameViolation::CreditOverflow { window: 10 })
    );
    assert_eq!(flow.sendable(), Sendable::Blocked);
    assert_eq!(flow.receive_end(), Ok(()));
    assert_eq!(flow.receive(1), Err(FrameViolation::DataAfterEnd));
    assert_eq!(flow.receive_end(), Err(FrameViolation::DataAfterEnd));
    assert_eq!(Kind::try_from(9), Err(FrameViolation::Kind(9)));
}

#[test]
fn late_frames_are_told_from_frames_that_make_no_sense() {
    let mut plugin = Table::new(Role::Acceptor);
    assert_eq!(plugin.accept(1, |tunnel| tunnel), Ok(1));
    assert_eq!(
        plugin.accept(1, |tunnel| tunnel),
        Err(FrameViolation::Open(1))
    );
    assert_eq!(plugin.find(Kind::Data, 1), Ok(Some(1)));
    plugin.remove(1);
    assert_eq!(
        plugin.find(Kind::Data, 1),
        Ok(None),
        "ended: late, not wrong"
    );
    let never = FrameViolation::NeverOpened {
        kind: Kind::Data,
        tunnel: 2,
    };
    assert_eq!(plugin.find(Kind::Data, 2), Err(never));

    let mut host = Table::new(Role::Opener);
    assert_eq!(host.open(|tunnel| tunnel), Some(1));
    assert_eq!(
        host.accept(2, |tunnel| tunnel),
        Err(FrameViolation::Open(2))
    );
}

#[test]
fn numbers_wrap_around_and_skip_those_in_use() {
    let mut host = Table::new(Role::Opener);
    host.open(|tunnel| tunnel);
    host.next = u32::MAX;
    assert_eq!(host.open(|tunnel| tunnel), Some(u32::MAX));
    assert_eq!(host.open(|tunnel| tunnel), Some(0));
    assert_eq!(host.open(|tunnel| tunnel), Some(2), "1 is still open");
    assert_eq!(host.find(Kind::Data, u32::MAX), Ok(Some(u32::MAX)));
    assert_eq!(host.len(), 4);
    assert_eq!(host.close().len(), 4);
    assert_eq!(host.open(|tunnel| tunnel), None, "closed");
}
