//! Goal: memory is never handed out twice, and always comes back.
//! Method: random operations beside an oracle, read back through a view.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    Alloc(usize),
    /// Leases a part of held bytes, which are chosen by this number.
    Lease(usize),
    Drop(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (1_usize..1_200_000).prop_map(Operation::Alloc),
        3 => (1_usize..9_000).prop_map(Operation::Alloc),
        2 => any::<usize>().prop_map(Operation::Lease),
        5 => any::<usize>().prop_map(Operation::Drop),
    ]
}

proptest! {
    #[test]
    fn bytes_stay_as_they_were_written(operations in prop::collection::vec(operation(), 1..60)) {
        let (arena, file) = Arena::create(4 << 20).expect("memory");
        let view = ArenaView::open(&file, 4 << 20).expect("sealed");
        // The oracle: what every hold must read as.
        let mut bytes: HashMap<usize, (Bytes, u8)> = HashMap::new();
        let mut leases: HashMap<usize, (Lease, u8)> = HashMap::new();
        for (number, operation) in operations.into_iter().enumerate() {
            let mark = u8::try_from(number % 251).expect("small");
            match operation {
                Operation::Alloc(length) => {
                    if let Some(mut memory) = arena.alloc(length) {
                        prop_assert_eq!(memory.len(), length);
                        memory.fill(mark);
                        bytes.insert(number, (memory.freeze(length), mark));
                    } else {
                        prop_assert!(length > 1 << 20 || arena.used_bytes() > 0);
                    }
                }
                Operation::Lease(which) => {
                    if let Some((held, mark)) = nth(&bytes, which) {
                        let part = held.slice(held.len() / 3..);
                        let lease = arena.lease(&part).expect("in the arena");
                        leases.insert(number, (lease, *mark));
                    }
                }
                Operation::Drop(which) => {
                    if which % 2 == 0 {
                        let key = key(&bytes, which);
                        key.map(|key| bytes.remove(&key));
                    } else {
                        let key = key(&leases, which);
                        key.map(|key| leases.remove(&key));
                    }
                }
            }
            for (held, mark) in bytes.values() {
                prop_assert!(is_all(held, *mark));
            }
            for (lease, mark) in leases.values() {
                let mut seen = vec![0; lease.len() as usize];
                view.readable(lease.offset(), lease.len()).expect("within").copy_to(&mut seen);
                prop_assert!(is_all(&seen, *mark));
            }
        }
        bytes.clear();
        leases.clear();
        prop_assert_eq!(arena.used_bytes(), 0);
        // The whole arena can be allocated again, in the largest pieces.
        let all: Vec<Writable> = (0..4).map(|_| arena.alloc(1 << 20).expect("free")).collect();
        prop_assert!(arena.alloc(1).is_none());
        drop(all);
    }
}

/// Compares all bytes in one call: one by one takes a minute without optimisation.
fn is_all(bytes: &[u8], mark: u8) -> bool {
    bytes == vec![mark; bytes.len()]
}

fn key<T>(of: &HashMap<usize, T>, which: usize) -> Option<usize> {
    let mut keys: Vec<usize> = of.keys().copied().collect();
    keys.sort_unstable();
    (!keys.is_empty()).then(|| keys[which % keys.len()])
}

fn nth<T>(of: &HashMap<usize, T>, which: usize) -> Option<&T> {
    key(of, which).map(|key| &of[&key])
}

#[test]
fn what_is_elsewhere_is_not_leased() {
    let (arena, _file) = Arena::create(1 << 20).expect("memory");
    assert!(arena.lease(b"on the heap").is_none());
    assert!(arena.lease(&[]).is_none());
    assert!(arena.alloc(0).is_none());
    assert!(arena.alloc((1 << 20) + 1).is_none());
}

#[test]
fn the_peer_can_only_read() {
    let (arena, file) = Arena::create(1 << 20).expect("memory");
    assert!(
        Mapping::open(&file, 1 << 20, false).is_err(),
        "no writable mapping"
    );
    assert!(rustix::io::pwrite(&file, b"x", 0).is_err(), "no write");
    assert!(rustix::fs::ftruncate(&file, 0).is_err(), "no cutting off");
    assert!(ArenaView::open(&file, 2 << 20).is_err(), "no other size");
    let view = ArenaView::open(&file, 1 << 20).expect("sealed");
    assert!(view.readable(1 << 20, 0).is_ok());
    assert!(matches!(
        view.readable(1 << 20, 1),
        Err(Violation::Range { .. })
    ));
    assert!(matches!(
        view.readable(u32::MAX, u32::MAX),
        Err(Violation::Range { .. })
    ));
    drop(arena);
}

#[test]
fn a_file_that_can_be_cut_off_is_refused() {
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("loose", flags).expect("memory");
    rustix::fs::ftruncate(&file, 1 << 20).expect("ours");
    let error = ArenaView::open(&file, 1 << 20)
        .expect_err("not sealed")
        .to_string();
    assert!(error.contains("not sealed against shrinking"), "{error}");
}
