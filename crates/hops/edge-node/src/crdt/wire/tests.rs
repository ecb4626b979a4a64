use proptest::prelude::*;

use super::*;

fn message() -> impl Strategy<Value = Message> {
    let actor = (0..20u8).prop_map(|byte| ActorId::from_bytes([byte; 16]));
    let totals = (0..1u64 << 48, 0..1u64 << 48).prop_map(|(ups, downs)| Totals { ups, downs });
    let state = prop::collection::vec((actor.clone(), totals), 0..5);
    let slot = (any::<u128>(), any::<u64>(), any::<u32>());
    let item =
        (slot, any::<bool>(), state).prop_map(|((key, start_ms, length_ms), shared, all)| Item {
            slot: Slot {
                key,
                start_ms,
                length_ms,
            },
            kind: if shared { Kind::Shared } else { Kind::Keyed },
            state: all.into_iter().collect(),
        });
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
    (actor, 1..9u8, numbers, prop::collection::vec(item, 0..9)).prop_map(
        |(from, to, (ack, since, upto, more), items)| Message {
            from,
            ack: (to != 1).then_some((ActorId::from_bytes([to; 16]), ack)),
            since,
            upto,
            more,
            items,
        },
    )
}

proptest! {
    #[test]
    fn what_was_written_is_read(message in message()) {
        let codec = Codec::new(b"secret");
        let (bytes, written) = codec.encode(&message);
        prop_assert_eq!(written, message.items.len());
        prop_assert_eq!(Codec::new(b"other").decode(&bytes), Err(WireError::Tag));
        prop_assert_eq!(codec.decode(&bytes), Ok(message));
    }

    #[test]
    fn damage_is_found(message in message(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let codec = Codec::new(b"");
        let (mut bytes, _) = codec.encode(&message);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(codec.decode(&bytes).is_err());
        bytes.truncate(at);
        prop_assert!(codec.decode(&bytes).is_err());
    }

    #[test]
    fn content_with_a_good_tag_is_read_or_refused(
        content in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        crate::hostile::attack_exchange(&content);
    }
}

#[test]
fn what_does_not_fit_is_left_out_and_told() {
    let state: State = (0..128u8)
        .map(|byte| {
            let totals = Totals {
                ups: 1 << 48,
                downs: 1 << 48,
            };
            (ActorId::from_bytes([byte; 16]), totals)
        })
        .collect();
    let item = Item {
        slot: Slot::at(1, 1_000, 0),
        kind: Kind::Keyed,
        state,
    };
    let message = Message {
        from: ActorId::from_bytes([1; 16]),
        ack: None,
        since: 0,
        upto: 0,
        more: false,
        items: vec![item; 1_000],
    };
    let codec = Codec::new(b"");
    let (bytes, written) = codec.encode(&message);
    assert!(bytes.len() <= MESSAGE_BYTES_MAX);
    assert!((50..1_000).contains(&written), "{written}");
    let read = codec.decode(&bytes).expect("valid");
    assert!(read.more);
    assert_eq!(read.items.len(), written);
}
