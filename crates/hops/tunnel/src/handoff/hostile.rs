//! Hostile peers on handoff: those that pass what they like, and those that say what they like.

use std::{
    io::{self, IoSlice, Read},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixStream as StdUnixStream},
    },
    sync::Arc,
};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType,
};
use service::ConnectionLimit;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Duration, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    HandoffError, Lender, Limits, Terms, WANTED, ask_upstreams, lend_upstreams, pass_clients,
    stream::ClientStream, take_clients,
};
use crate::{
    counters::Counters,
    framed::LocalSocket,
    hostile::{RUNTIME, WATCHDOG},
    rendezvous::descriptors::receive,
};

/// Most clients of a session here.
const CLIENTS_MAX: usize = 8;

/// More descriptors than there is room for in one message.
const TOO_MANY: usize = 60;

/// Longer than any attack.
const LONG: Duration = Duration::from_secs(600);

/// Pause between two looks at something that no event tells of.
const LOOK: Duration = Duration::from_millis(1);

/// The other end of something that was passed. It tells whether all copies of that are closed.
enum Canary {
    Stream(StdUnixStream),
    Tcp(TcpStream),
    Pipe(io::PipeReader),
    Datagram(UnixDatagram),
    Listener(std::net::SocketAddr),
}

impl Canary {
    /// Returns whether what was passed is closed everywhere.
    fn is_closed(&mut self) -> bool {
        let is_over = |read: io::Result<usize>| match read {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        match self {
            Self::Stream(socket) => is_over(socket.read(&mut [0; 64])),
            Self::Tcp(socket) => is_over(socket.read(&mut [0; 64])),
            Self::Pipe(reader) => is_over(reader.read(&mut [0; 64])),
            Self::Datagram(socket) => socket.send(b"x").is_err(),
            Self::Listener(address) => TcpStream::connect(*address).is_err(),
        }
    }

    /// Waits until what was passed is closed everywhere.
    async fn until_closed(&mut self) {
        while !self.is_closed() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn until_all_closed(canaries: Vec<Canary>) {
    for mut canary in canaries {
        let closed = timeout(WATCHDOG, canary.until_closed()).await;
        closed.expect("what was passed is closed");
    }
}

/// Returns a connection to pass, and its other end.
fn unix_connection() -> (OwnedFd, Canary) {
    let (ours, theirs) = StdUnixStream::pair().expect("sockets");
    ours.set_nonblocking(true).expect("a socket");
    (theirs.into(), Canary::Stream(ours))
}

fn tcp_connection() -> (OwnedFd, Canary) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (theirs, _) = listener.accept().expect("connected");
    ours.set_nonblocking(true).expect("a socket");
    (theirs.into(), Canary::Tcp(ours))
}

fn pipe() -> (OwnedFd, Canary) {
    let (reader, writer) = io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&reader, true).expect("a pipe");
    (writer.into(), Canary::Pipe(reader))
}

fn datagram() -> (OwnedFd, Canary) {
    let (ours, theirs) = UnixDatagram::pair().expect("sockets");
    ours.set_nonblocking(true).expect("a socket");
    (theirs.into(), Canary::Datagram(ours))
}

fn listener() -> (OwnedFd, Canary) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener.into(), Canary::Listener(address))
}

/// A peer that passes what it likes.
struct Passing {
    socket: UnixStream,
    canaries: Vec<Canary>,
}

impl Passing {
    fn over(socket: UnixStream) -> Self {
        Self {
            socket,
            canaries: Vec::new(),
        }
    }

    /// Leaves, and waits until the other end has ended and closed everything.
    async fn leave(
        self,
        ending: JoinHandle<Result<(), HandoffError>>,
        counters: &Counters,
    ) -> Result<(), HandoffError> {
        drop(self.socket);
        let ended = timeout(WATCHDOG, ending).await.expect("it ends");
        until_all_closed(self.canaries).await;
        let nothing_open = async {
            while counters.tunnels_open.get() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        timeout(WATCHDOG, nothing_open).await.expect("all end");
        ended.expect("no panic")
    }

    /// Passes descriptors in one message. They are closed here, whether or not they were passed.
    fn pass(&mut self, passed: impl IntoIterator<Item = (OwnedFd, Canary)>) {
        let (descriptors, canaries): (Vec<_>, Vec<_>) = passed.into_iter().unzip();
        self.canaries.extend(canaries);
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOO_MANY))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = [IoSlice::new(b"m")];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // Fails if the other end has left, or is slow: both are fine.
        let _ = rustix::net::sendmsg(&self.socket, &bytes, &mut beside, flags);
    }

    async fn play(&mut self, what: u8) {
        match what % 12 {
            0 => self.pass([unix_connection()]),
            1 => self.pass([tcp_connection()]),
            2 => self.pass([unix_connection(), unix_connection()]),
            3 => self.pass([pipe()]),
            4 => self.pass([datagram()]),
            5 => self.pass([listener()]),
            6 => {
                let kind = (AddressFamily::INET, SocketType::STREAM);
                let socket = rustix::net::socket(kind.0, kind.1, None).expect("a socket");
                let (_, canary) = unix_connection();
                self.pass([(socket, canary)]);
            }
            7 => self.pass((0..TOO_MANY).map(|_| unix_connection())),
            // Bytes without descriptors.
            8 => drop(self.socket.write(b"who").await),
            // Nothing more is passed.
            9 => drop(self.socket.shutdown().await),
            // A client leaves.
            10 => drop(self.canaries.pop()),
            _ => drop(self.socket.try_read(&mut [0; 7])),
        }
    }
}

/// Plays the host of a plugin, as `moves` say: each byte passes something. Returns what the plugin
/// says at the end of the session.
///
/// # Panics
/// If the plugin panics or hangs, or keeps anything open.
pub fn attack_handoff_plugin(moves: &[u8]) -> Result<(), String> {
    let attack = attack_plugin(moves);
    RUNTIME.block_on(attack).map_err(|error| error.to_string())
}

async fn attack_plugin(moves: &[u8]) -> Result<(), HandoffError> {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let counters = Arc::new(Counters::default());
    let limits = Limits {
        terms: Terms::new(Some(LONG)),
        clients_max: CLIENTS_MAX,
    };
    let (_stop, stopped) = watch::channel(false);
    let of_plugin = counters.clone();
    let taking = tokio::spawn(async move {
        let serve = |client: super::Client| client.serve(echo);
        take_clients(theirs, limits, &of_plugin, stopped, serve).await
    });
    let mut host = Passing::over(ours);
    for what in moves {
        host.play(*what).await;
    }
    host.leave(taking, &counters).await
}

/// Plays the plugin of a host that relays, as `moves` say: each byte passes something, or a client
/// comes to the host. Returns what the host says at the end of the session.
///
/// # Panics
/// If the host panics or hangs, or keeps anything open.
pub fn attack_handoff_asker(moves: &[u8]) -> Result<(), String> {
    let attack = attack_asker(moves);
    RUNTIME.block_on(attack).map_err(|error| error.to_string())
}

/// A move of the attack on a host that relays: a client comes.
const CLIENT: u8 = 0x80;

async fn attack_asker(moves: &[u8]) -> Result<(), HandoffError> {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let counters = Arc::new(Counters::default());
    let (_stop, stopped) = watch::channel(false);
    let (started, asker) = oneshot::channel();
    let of_host = counters.clone();
    let asking = tokio::spawn(async move {
        let started = |asker| drop(started.send(asker));
        ask_upstreams(theirs, &of_host, Some(LONG), stopped, started).await
    });
    let asker = asker.await.expect("it has started");
    let (limit, tunnels) = (ConnectionLimit::new(moves.len() + 1), TaskTracker::new());
    let mut plugin = Passing::over(ours);
    for what in moves {
        if what & CLIENT == 0 {
            plugin.play(*what).await;
            continue;
        }
        let (socket, canary) = unix_connection();
        plugin.canaries.push(canary);
        let place = (limit.permit(|| ()).await, tunnels.token());
        asker.give(LocalSocket::Unix(socket.into()), place);
        // What is passed next is asked for, unless the session is over.
        let mut word = [0];
        let asked = plugin.socket.read(&mut word);
        drop(timeout(WATCHDOG, asked).await.expect("a word, or the end"));
    }
    drop(asker);
    let ended = plugin.leave(asking, &counters).await;
    tunnels.close();
    timeout(WATCHDOG, tunnels.wait())
        .await
        .expect("no place is kept");
    ended
}

async fn echo(stream: ClientStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    // Ends with the client, which may reset the connection.
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Plays the plugin of a host, as `moves` say, while the host passes clients. Returns what the host
/// says at the end of the session.
///
/// # Panics
/// If the host panics or hangs, or keeps anything open.
pub fn attack_handoff_host(moves: &[u8]) -> Result<(), String> {
    let attack = attack_host(moves);
    RUNTIME.block_on(attack).map_err(|error| error.to_string())
}

async fn attack_host(moves: &[u8]) -> Result<(), HandoffError> {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let counters = Arc::new(Counters::default());
    let (_stop, stopped) = watch::channel(false);
    let (started, passer) = oneshot::channel();
    let of_host = counters.clone();
    let passing = tokio::spawn(async move {
        let started = |passer| drop(started.send(passer));
        pass_clients(theirs, &of_host, stopped, started).await
    });
    let passer = passer.await.expect("it has started");
    let (limit, tunnels) = (ConnectionLimit::new(moves.len() + 1), TaskTracker::new());
    let (mut plugin, mut canaries) = (Saying::over(ours), Vec::new());
    for what in moves {
        if what % 8 > 1 {
            plugin.play(*what).await;
            continue;
        }
        // The host passes a client.
        plugin.due += 1;
        let (socket, canary) = unix_connection();
        canaries.push(canary);
        let place = (limit.permit(|| ()).await, tunnels.token());
        let (passer, client) = (passer.clone(), LocalSocket::Unix(socket.into()));
        tunnels.spawn(async move { passer.pass(client, place).await });
    }
    drop((passer, plugin));
    let ended = timeout(WATCHDOG, passing).await.expect("it ends");
    tunnels.close();
    timeout(WATCHDOG, tunnels.wait())
        .await
        .expect("no place is kept");
    until_all_closed(canaries).await;
    assert_eq!(counters.tunnels_open.get(), 0);
    ended.expect("no panic")
}

/// Plays the host of a plugin that passes upstreams, as `moves` say. Returns what the plugin says
/// at the end of the session.
///
/// # Panics
/// If the plugin panics or hangs, or keeps anything open.
pub fn attack_handoff_lender(moves: &[u8]) -> Result<(), String> {
    let attack = attack_lender(moves);
    RUNTIME.block_on(attack).map_err(|error| error.to_string())
}

async fn attack_lender(moves: &[u8]) -> Result<(), HandoffError> {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let counters = Arc::new(Counters::default());
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    upstream.set_nonblocking(true).expect("a socket");
    let (_stop, stopped) = watch::channel(false);
    let tunnels = TaskTracker::new();
    let lender = Lender {
        address: service::Address::Tcp(upstream.local_addr().expect("bound")),
        connect_timeout: LONG,
        clients_max: CLIENTS_MAX,
        tunnels: tunnels.clone(),
    };
    let of_plugin = counters.clone();
    let lend = async move { lend_upstreams(theirs, lender, &of_plugin, stopped).await };
    let lending = tokio::spawn(lend);
    let mut host = Saying::over(ours);
    for what in moves {
        host.play(*what).await;
    }
    drop(host);
    let ended = timeout(WATCHDOG, lending).await.expect("it ends");
    tunnels.close();
    timeout(WATCHDOG, tunnels.wait())
        .await
        .expect("no token is kept");
    assert_eq!(counters.tunnels_open.get(), 0);
    while let Ok((socket, _)) = upstream.accept() {
        socket.set_nonblocking(true).expect("a socket");
        until_all_closed(vec![Canary::Tcp(socket)]).await;
    }
    ended.expect("no panic")
}

/// A peer that says what it likes, and keeps what it is passed.
struct Saying {
    socket: UnixStream,
    kept: Vec<OwnedFd>,
    /// Number of messages that are on their way, or will be.
    due: usize,
}

impl Saying {
    fn over(socket: UnixStream) -> Self {
        Self {
            socket,
            kept: Vec::new(),
            due: 0,
        }
    }

    async fn play(&mut self, what: u8) {
        match what % 8 {
            0 | 1 => {
                self.due += 1;
                drop(self.socket.write(&[WANTED]).await);
            }
            2 if self.due > 0 => {
                self.due -= 1;
                let received = timeout(WATCHDOG, receive(&self.socket)).await;
                // The session may be over.
                if let Ok(received) = received.expect("it comes, or the end") {
                    self.kept.extend(received.descriptors);
                }
            }
            2 => {}
            3 => drop(self.socket.write(b"e").await),
            4 => drop(self.socket.write(b"f").await),
            5 => drop(self.socket.write(&[what, what]).await),
            6 => drop(self.kept.pop()),
            _ => drop(self.socket.shutdown().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::{made_up, rounds};

    #[test]
    fn honest_hosts_and_plugins_part_in_peace() {
        assert_eq!(attack_handoff_plugin(&[0, 1, 10, 0, 11]), Ok(()));
        assert_eq!(attack_handoff_host(&[0, 2, 3, 1, 2, 4]), Ok(()));
        assert_eq!(attack_handoff_asker(&[CLIENT, 0, CLIENT, 1, 10]), Ok(()));
        assert_eq!(attack_handoff_lender(&[0, 2, 0, 2, 6, 2]), Ok(()));
    }

    #[test]
    fn what_a_host_may_not_pass_ends_the_session_and_is_closed() {
        for (what, expected) in [
            (2, "2 descriptors"),
            (3, "no connection"),
            (4, "no connection"),
            (5, "no connection"),
            (7, "descriptors at once"),
            (8, "0 descriptors"),
        ] {
            let error = attack_handoff_plugin(&[0, 1, what]).expect_err("not allowed");
            assert!(error.contains(expected), "{what}: {error}");
        }
        let error = attack_handoff_plugin(&[0; CLIENTS_MAX + 1]).expect_err("too many");
        assert!(error.contains("more than the 8 clients"), "{error}");
    }

    /// A socket that isn't connected costs only itself: a client may have gone, too.
    #[test]
    fn a_socket_that_is_not_connected_ends_at_once() {
        assert_eq!(attack_handoff_plugin(&[6, 0, 6]), Ok(()));
    }

    #[test]
    fn what_a_plugin_may_not_say_ends_the_session() {
        let error = attack_handoff_host(&[3]).expect_err("no client has ended");
        assert!(error.contains("more connections than it has"), "{error}");
        let error = attack_handoff_host(&[0, 2, 5]).expect_err("no report");
        assert!(error.contains("said 0x05"), "{error}");
    }

    #[test]
    fn what_a_plugin_may_not_lend_ends_the_session_and_is_closed() {
        for (what, expected) in [
            (2, "2 descriptors"),
            (3, "no connection"),
            (5, "no connection"),
            (7, "descriptors at once"),
        ] {
            let error = attack_handoff_asker(&[CLIENT, what]).expect_err("not allowed");
            assert!(error.contains(expected), "{what}: {error}");
        }
        let error = attack_handoff_asker(&[0]).expect_err("nobody has asked");
        assert!(error.contains("nobody asked for"), "{error}");
    }

    #[test]
    fn what_a_host_may_not_ask_ends_the_session() {
        let error = attack_handoff_lender(&[0, 2, 3, 3]).expect_err("none is left");
        assert!(error.contains("more connections than it has"), "{error}");
        let error = attack_handoff_lender(&[5]).expect_err("no word");
        assert!(error.contains("said 0x05"), "{error}");
        let error = attack_handoff_lender(&[0; CLIENTS_MAX + 1]).expect_err("too many");
        assert!(error.contains("more than the 8 clients"), "{error}");
    }

    #[test]
    fn whatever_a_peer_does_neither_end_hangs_panics_or_keeps_anything() {
        for seed in 0..rounds() {
            let _ = attack_handoff_plugin(&made_up(seed, 24));
            let _ = attack_handoff_host(&made_up(seed, 200));
            let _ = attack_handoff_asker(&made_up(seed, 24));
            let _ = attack_handoff_lender(&made_up(seed, 24));
        }
    }
}
