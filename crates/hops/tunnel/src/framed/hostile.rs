//! A hostile peer that sends arbitrary frames, or bytes that are no frames.

use std::{pin::pin, sync::Arc};

use ::rapace::{Frame, FrameFlags, MsgDescHot, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{
    FramedPeer, LinkError, Local, LocalSocket, Registered, Role, Session, SessionTerms,
    SlotCounters, mux::Kind,
};
use crate::{
    counters::Counters,
    hostile::{RUNTIME, WATCHDOG},
    ring::hostile::be_client,
};

const TUNNELS: usize = 4;
const WINDOW_BYTES: u32 = 8192;
const FRAME_BYTES: usize = 2048;

/// Number of bytes from which a frame is made.
pub(crate) const MOVE_BYTES: usize = 8;

/// Sends what `moves` say to one end of a session. Returns whether that end noticed a violation.
///
/// The first byte chooses the end, and whether frames are sent or bytes that may be no frames.
///
/// # Panics
/// If that end panics, hangs, or keeps a tunnel or a client waiting.
pub fn attack_session(moves: &[u8]) -> bool {
    RUNTIME.block_on(attack(Vec::from(moves)))
}

fn terms(role: Role) -> SessionTerms {
    SessionTerms {
        role,
        frame_bytes: FRAME_BYTES,
        window_bytes: WINDOW_BYTES,
        peer_window_bytes: WINDOW_BYTES,
        tunnels_max: TUNNELS,
    }
}

fn local(socket: UnixStream) -> Registered {
    let socket = socket.into_std().expect("a socket");
    LocalSocket::Unix(socket).register().expect("a runtime")
}

async fn attack(moves: Vec<u8>) -> bool {
    let Some((how, moves)) = moves.split_first() else {
        return false;
    };
    let role = if how & 1 == 0 {
        Role::Opener
    } else {
        Role::Acceptor
    };
    let counters = Arc::new(Counters::default());
    let (session, mut opened) = Session::new(terms(role), counters.clone());
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let mut tunnels = JoinSet::new();
    let mut clients = JoinSet::new();
    if role == Role::Opener {
        for _ in 0..TUNNELS {
            let (near, far) = UnixStream::pair().expect("sockets");
            let tunnel = session.open().expect("not over");
            let client = Local::Client { idle_timeout: None };
            tunnels.spawn(tunnel.relay(local(near), client));
            clients.spawn(be_client(far));
        }
    }
    let running = tokio::spawn({
        let (session, counters) = (session.clone(), counters.clone());
        async move {
            let (_stop, stopped) = watch::channel(false);
            let (peer, slots) = (FramedPeer::Unix(ours), SlotCounters::default());
            let mut running = pin!(peer.run(&session, role, &counters, &slots, stopped));
            let ended = loop {
                tokio::select! {
                    ended = &mut running => break ended,
                    Some(tunnel) = opened.recv() => {
                        let (near, far) = UnixStream::pair().expect("sockets");
                        tunnels.spawn(tunnel.relay(local(near), Local::Upstream));
                        clients.spawn(be_server(far));
                    }
                }
            };
            opened.close();
            while let Ok(tunnel) = opened.try_recv() {
                tunnel.abort();
            }
            (ended, tunnels, clients)
        }
    });
    match how & 2 {
        0 => send_frames(theirs, role, moves).await,
        _ => send_bytes(theirs, moves).await,
    }
    let ended = timeout(WATCHDOG, running).await.expect("it ends");
    let (ended, tunnels, clients) = ended.expect("no panic");
    let told = timeout(WATCHDOG, async {
        tunnels.join_all().await;
        clients.join_all().await;
    });
    assert!(told.await.is_ok(), "a tunnel was kept waiting");
    drop(session);
    assert_eq!(counters.tunnels_open.get(), 0);
    matches!(ended, Err(LinkError::Violation(_)))
}

/// Sends back what it gets, until somebody ends it.
async fn be_server(socket: UnixStream) {
    let (mut reader, mut writer) = socket.into_split();
    // A reset is an end, too.
    let _ = tokio::io::copy(&mut reader, &mut writer).await;
}

async fn send_bytes(socket: UnixStream, bytes: &[u8]) {
    let (mut reader, mut writer) = socket.into_split();
    let reading = tokio::spawn(async move { reader.read_to_end(&mut Vec::new()).await });
    // The other end may have closed before the last byte.
    let _ = writer.write_all(bytes).await;
    drop(writer);
    let read = timeout(WATCHDOG, reading).await.expect("it ends");
    drop(read.expect("no panic"));
}

async fn send_frames(socket: UnixStream, role: Role, moves: &[u8]) {
    let transport = Transport::stream(socket);
    let reader = transport.clone();
    let reading = tokio::spawn(async move { while reader.recv_frame().await.is_ok() {} });
    let (mut sequence, mut next) = (0, 1);
    for bytes in moves.chunks_exact(MOVE_BYTES) {
        let bytes = bytes.try_into().expect("so many");
        let frame = frame(bytes, role, &mut sequence, &mut next);
        if transport.send_frame(frame).await.is_err() {
            break;
        }
    }
    reading.abort();
    // The task's half of the socket is dropped with it.
    drop(reading.await);
}

/// Makes a frame, mostly one that the rules allow.
fn frame(bytes: [u8; MOVE_BYTES], role: Role, sequence: &mut u64, next: &mut u32) -> Frame {
    let [what, tunnel, value @ .., length0, length1, odd] = bytes;
    let kind = match (what % 8, role) {
        (0, Role::Acceptor) => Kind::Open,
        (0 | 1, _) => Kind::Credit,
        (2, _) => Kind::End,
        (3, _) => Kind::Reset,
        _ => Kind::Data,
    };
    let mut descriptor = MsgDescHot::new();
    descriptor.flags = FrameFlags::from_bits_truncate(u32::from(odd));
    descriptor.method_id = if odd == 255 { 9 } else { kind as u32 };
    descriptor.msg_id = *sequence + u64::from(odd == 254);
    *sequence += 1;
    descriptor.channel_id = if kind == Kind::Open && tunnel < 250 {
        *next += 1;
        *next - 1
    } else {
        // Mostly one of the tunnels that there are, and seldom another one.
        u32::from(tunnel) % 6
    };
    let value = value
        .iter()
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    descriptor.credit_grant = if what < 128 { value % 2048 } else { value << 8 };
    if kind != Kind::Data {
        return Frame::new(descriptor);
    }
    let length = usize::from(u16::from_le_bytes([length0, length1]));
    let length = if what < 250 { length % 512 } else { length };
    Frame::with_bytes(descriptor, vec![7; length].into())
}

#[cfg(test)]
mod tests {
    use super::{super::mux::FrameViolation, *};
    use crate::hostile::{made_up, rounds};

    #[test]
    fn either_end_outlives_whatever_its_peer_sends() {
        let noticed = (0..rounds()).filter(|seed| {
            let mut moves = made_up(*seed, 1 + 100 * MOVE_BYTES);
            moves[0] = u8::try_from(seed % 4).expect("little");
            attack_session(&moves)
        });
        assert!(noticed.count() > 0, "nothing that was sent was wrong");
    }

    #[test]
    fn a_peer_that_opens_tunnels_and_does_not_read_is_not_kept() {
        let ended = RUNTIME.block_on(async {
            let counters = Arc::new(Counters::default());
            let (session, _opened) = Session::new(terms(Role::Acceptor), counters.clone());
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            let (_stop, stopped) = watch::channel(false);
            let running = tokio::spawn(async move {
                let (peer, slots) = (FramedPeer::Unix(ours), SlotCounters::default());
                let running = peer.run(&session, Role::Acceptor, &counters, &slots, stopped);
                running.await
            });
            let transport = Transport::stream(theirs);
            let (mut sequence, mut next) = (0, 1);
            // Tunnels beyond the limit are reset. Nobody reads the resets.
            while transport
                .send_frame(frame([0; 8], Role::Acceptor, &mut sequence, &mut next))
                .await
                .is_ok()
            {}
            timeout(WATCHDOG, running).await.expect("it ends")
        });
        let ended = ended.expect("no panic").expect_err("it was noticed");
        let LinkError::Violation(violation) = ended else {
            panic!("{ended}");
        };
        assert!(
            matches!(violation, FrameViolation::Unread(_)),
            "{violation}"
        );
    }
}
