//! A hostile peer in the hand-shake: it sends arbitrary lines and arbitrary descriptors.

use std::{fs::File, os::fd::OwnedFd, sync::LazyLock};

use clap::Parser;
use rustix::fs::{MemfdFlags, SealFlags};

use super::*;
use crate::hostile::{RUNTIME, WATCHDOG};

/// A command line that has only the transport's options.
#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    options: TransportOptions,
}

const TRANSPORTS: [TransportKind; 4] = [
    TransportKind::Stream,
    TransportKind::Shm,
    TransportKind::Ring,
    TransportKind::Handoff,
];

const ARENA_BYTES: usize = 1 << 20;

/// The smallest sizes that each transport allows, so that many hand-shakes can be tried.
static OPTIONS: LazyLock<[TransportOptions; TRANSPORTS.len()]> = LazyLock::new(|| {
    TRANSPORTS.map(|transport| {
        let arguments = format!(
            "peer --addr=/unused --transport={transport} --shm-slots=8 --shm-slot-size=64 \
             --ring-entries=2 --ring-kib=4 --arena-mib=1"
        );
        let command = Command::try_parse_from(arguments.split(' ')).expect("valid");
        command.options
    })
});

static RING: LazyLock<PluginRing> = LazyLock::new(|| {
    let (arena, file) = Arena::create(ARENA_BYTES).expect("memory");
    PluginRing { arena, file }
});

/// Plays the peer of one end of a hand-shake, as `moves` say. Returns whether that end agreed.
///
/// The first byte chooses the end, the transport, and the descriptors that are handed over. The
/// rest is what the peer says.
///
/// # Panics
/// If that end panics or hangs.
pub fn attack_handshake(moves: &[u8]) -> bool {
    RUNTIME.block_on(attack(Vec::from(moves)))
}

async fn attack(moves: Vec<u8>) -> bool {
    let Some((how, said)) = moves.split_first() else {
        return false;
    };
    let (is_host, how) = (how & 1 == 0, usize::from(how >> 1));
    let (options, how) = (&OPTIONS[how % TRANSPORTS.len()], how / TRANSPORTS.len());
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let counters = Arc::new(Counters::default());
    let agreeing = tokio::spawn(async move {
        let socket = PeerSocket::Unix(ours);
        if is_host {
            let Ok(newcomer) = socket.introduce().await else {
                return false;
            };
            let bounds = Bounds {
                tunnels_max: 4,
                shards: 1,
                idle_timeout: None,
            };
            newcomer.welcome(options, bounds, &counters).await.is_ok()
        } else {
            let agreed = agree_with_host(socket, options, Some(&RING), &counters).await;
            agreed.is_ok_and(|agreed| agreed.is_ok())
        }
    });
    let (said, rest) = match said.iter().position(|byte| *byte == b'\n') {
        Some(end) => said.split_at(end + 1),
        None => (said, &[][..]),
    };
    be_peer(theirs, said, &handed_over(how), rest).await;
    let agreed = timeout(WATCHDOG, agreeing).await.expect("it ends");
    agreed.expect("no panic")
}

async fn be_peer(socket: UnixStream, said: &[u8], handed_over: &[OwnedFd], rest: &[u8]) {
    // Each of these fails if the other end has gone, which is a valid answer.
    let mut socket = socket;
    let _ = socket.write_all(said).await;
    let descriptors: Vec<_> = handed_over.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        let _ = send_descriptors(&socket, &descriptors).await;
    }
    let _ = socket.write_all(rest).await;
    let _ = socket.shutdown().await;
    let _ = timeout(WATCHDOG, socket.read_to_end(&mut Vec::new()))
        .await
        .expect("it ends");
}

/// Returns descriptors that a peer may hand over, whether or not they make sense.
fn handed_over(what: usize) -> Vec<OwnedFd> {
    let null = || OwnedFd::from(File::open("/dev/null").expect("there is one"));
    let memory = |bytes: u64, seals: SealFlags| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("hostile", flags).expect("memory");
        rustix::fs::ftruncate(&memory, bytes).expect("memory");
        rustix::fs::fcntl_add_seals(&memory, seals).expect("allowed");
        memory
    };
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    match what % 10 {
        0 => Vec::new(),
        1 => vec![null()],
        2 => vec![memory(ARENA_BYTES as u64, SealFlags::empty())],
        3 => vec![memory(ARENA_BYTES as u64, sealed | SealFlags::FUTURE_WRITE)],
        4 => vec![memory(0, sealed)],
        5 => vec![memory(1 << 16, sealed), null(), null()],
        6 => (0..9).map(|_| null()).collect(),
        // As from an honest host on ring, except that one bell is no bell.
        7 => {
            let [memory, host, _] = offer();
            vec![memory, host, null()]
        }
        // As from an honest host on ring, and below, on shm.
        8 => offer().into(),
        _ => {
            let (_, memory) = SlotSegment::create(OPTIONS[1].slots()).expect("memory");
            vec![memory]
        }
    }
}

fn offer() -> [OwnedFd; 3] {
    let terms = OPTIONS[2].ring_terms(1, 4);
    let (_, descriptors) = Offer::new(terms).expect("memory");
    descriptors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{made_up, rounds};

    /// Returns the line that an honest plugin sends.
    fn hello(transport: TransportKind) -> String {
        format!(
            "{{\"protocol\":{PROTOCOL},\"build\":\"x\",\"transport\":\"{transport}\",\
             \"window_bytes\":65536,\"arena_bytes\":{ARENA_BYTES}}}\n"
        )
    }

    /// Returns the line that an honest host sends on ring.
    fn welcome() -> String {
        let terms = OPTIONS[2].ring_terms(1, 4);
        let answer = Answer::Welcome(Welcome {
            window_bytes: 65536,
            tunnels_max: 4,
            slots: None,
            ring: Some(terms),
            handoff: None,
        });
        serde_json::to_string(&answer).expect("JSON") + "\n"
    }

    /// Returns the line that a host sends on handoff, with an idle time-out.
    fn handoff(idle_timeout_ms: &str) -> String {
        format!(
            "{{\"welcome\":{{\"window_bytes\":65536,\"tunnels_max\":4,\"slots\":null,\
             \"ring\":null,\"handoff\":{{\"idle_timeout_ms\":{idle_timeout_ms}}}}}}}\n"
        )
    }

    fn how(is_host: bool, transport: usize, handed_over: usize) -> u8 {
        let what = transport + TRANSPORTS.len() * handed_over;
        u8::from(!is_host) | u8::try_from(what).expect("few") << 1
    }

    fn moves(is_host: bool, transport: usize, handed_over: usize, said: &str) -> Vec<u8> {
        [&[how(is_host, transport, handed_over)], said.as_bytes()].concat()
    }

    #[test]
    fn honest_peers_are_agreed_with() {
        assert!(attack_handshake(&moves(
            true,
            0,
            0,
            &hello(TransportKind::Stream)
        )));
        assert!(attack_handshake(&moves(
            true,
            1,
            0,
            &hello(TransportKind::Shm)
        )));
        assert!(attack_handshake(&moves(
            true,
            2,
            3,
            &hello(TransportKind::Ring)
        )));
        assert!(attack_handshake(&moves(false, 2, 8, &welcome())));
        assert!(attack_handshake(&moves(
            true,
            3,
            0,
            &hello(TransportKind::Handoff)
        )));
        assert!(attack_handshake(&moves(false, 3, 0, &handoff("null"))));
    }

    #[test]
    fn on_ring_a_host_hears_whether_requests_go_on() {
        RUNTIME.block_on(async {
            let (host, plugin) = UnixStream::pair().expect("sockets");
            let counters = Arc::new(Counters::default());
            let bounds = Bounds {
                tunnels_max: 4,
                shards: 1,
                idle_timeout: None,
            };
            let (options, theirs) = (&OPTIONS[2], counters.clone());
            let welcome = tokio::spawn(async move {
                let newcomer = PeerSocket::Unix(host).introduce().await.expect("a hello");
                newcomer.welcome(options, bounds, &theirs).await
            });
            let plugin = PeerSocket::Unix(plugin);
            let agreed = agree_with_host(plugin, options, Some(&RING), &counters).await;
            assert!(agreed.is_ok_and(|agreed| agreed.is_ok()));
            let peer = welcome.await.expect("no panic").expect("agreed");
            assert!(matches!(peer, Peer::Ring { .. }));
        });
    }

    #[test]
    fn a_welcome_to_something_else_is_refused() {
        let slots = |count: u32, size_bytes: u32| {
            format!("{{\"count\":{count},\"size_bytes\":{size_bytes}}}")
        };
        let welcome = |tunnels_max: u64, slots: &str| {
            format!(
                "{{\"welcome\":{{\"window_bytes\":65536,\"tunnels_max\":{tunnels_max},\
                 \"slots\":{slots},\"ring\":null}}}}\n"
            )
        };
        let agrees = |transport, said: &str| {
            // A segment is handed over, whether it is asked for or not.
            attack_handshake(&moves(false, transport, 9, said))
        };
        assert!(agrees(0, &welcome(4, "null")));
        assert!(agrees(1, &welcome(4, &slots(8, 64))));
        assert!(agrees(3, &handoff("604800000")));
        for (transport, said) in [
            (1, welcome(4, "null")),
            (2, welcome(4, "null")),
            (2, welcome(4, &slots(8, 64))),
            (0, welcome(4, &slots(8, 64))),
            (0, welcome(0, "null")),
            (0, welcome(1 << 60, "null")),
            (1, welcome(4, &slots(1, 64))),
            (1, welcome(4, &slots(8, 0))),
            (1, welcome(4, &slots(8, 65))),
            (1, welcome(4, &slots(65_536, 16 << 20))),
            (3, welcome(4, "null")),
            (3, welcome(4, &slots(8, 64))),
            (0, handoff("null")),
            (3, handoff("0")),
            (3, handoff("604800001")),
            (3, handoff("-1")),
        ] {
            assert!(!agrees(transport, &said), "{transport}: {said}");
        }
    }

    #[test]
    fn memory_that_could_be_taken_away_is_refused() {
        for handed_over in [0, 1, 2, 4, 5, 6, 7] {
            let what = format!("{handed_over}");
            let refused =
                !attack_handshake(&moves(true, 2, handed_over, &hello(TransportKind::Ring)));
            assert!(refused, "{what}");
            let refused = !attack_handshake(&moves(false, 2, handed_over, &welcome()));
            assert!(refused, "{what}");
            let slots = "{\"welcome\":{\"window_bytes\":65536,\"tunnels_max\":8,\
                         \"slots\":{\"count\":8,\"size_bytes\":64},\"ring\":null}}\n";
            let refused = !attack_handshake(&moves(false, 1, handed_over, slots));
            assert!(refused, "{what}");
        }
    }

    #[test]
    fn whatever_is_said_neither_end_hangs_or_panics() {
        for seed in 0..rounds() {
            // An honest line, damaged.
            let is_host = seed % 2 == 0;
            let transport = usize::try_from(seed).expect("little") % TRANSPORTS.len();
            let mut said = match (is_host, TRANSPORTS[transport]) {
                (true, transport) => hello(transport).into_bytes(),
                (false, TransportKind::Handoff) => handoff("1000").into_bytes(),
                (false, _) => welcome().into_bytes(),
            };
            for damage in made_up(seed, 12).chunks_exact(3) {
                let at = usize::from(damage[0]) % said.len();
                match damage[1] % 3 {
                    0 => said[at] = damage[2],
                    1 => drop(said.remove(at)),
                    _ => said.insert(at, b'0' + damage[2] % 10),
                }
            }
            let handed_over = usize::try_from(seed / 8).expect("little") % 10;
            let how = how(is_host, transport, handed_over);
            attack_handshake(&[&[how], said.as_slice()].concat());
        }
    }
}
