//! How host and plugin find each other and agree.
//!
//! ```text
//! plugin                                  host
//!   connect to --addr  ───────────────►   accept; same user?
//!   {"protocol":1, "transport":…}\n  ──►  same protocol and transport? nobody attached yet?
//!   ◄──────────────  {"welcome":{…}}\n    terms; on shm the geometry, then the memory by
//!                                         SCM_RIGHTS
//!                    {"refused":"why"}\n
//! ```
//!
//! The lines are read byte by byte: what follows them on a stream is rapace's.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, bail};
use origin::server::{SocketFile, bind_unix};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{Instant, timeout},
};

use crate::{
    framed::{Peer, Role, Segment, Slots, Terms},
    transport::{PeerAddress, TransportKind, TransportOptions},
};

/// Raised whenever frames or the hand-shake change in a way that an older build would misread.
const PROTOCOL: u32 = 1;

/// A hand-shake is a few hundred bytes between two processes of one machine.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: usize = 4096;

/// Between two attempts to connect to a host that is not there yet.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Debug, Deserialize, Serialize)]
struct Hello {
    protocol: u32,
    build: String,
    transport: TransportKind,
    window_bytes: u32,
    /// What the plugin insists on, if anything.
    shm_slots: Option<u32>,
    shm_slot_size: Option<u32>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Refused(String),
    Welcome {
        window_bytes: u32,
        tunnels_max: usize,
        slots: Option<Slots>,
    },
}

/// Only what every version has, to name a peer of another one.
#[derive(Debug, Deserialize)]
struct AnyHello {
    protocol: u32,
    build: String,
}

/// Why an attempt to attach failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// The host said no, or is of another kind: trying again won't help.
    #[error("the host at '{address}' refused: {reason}")]
    Refused { address: String, reason: String },
    #[error(
        "no host answered at '{address}' within {waited_ms} ms ({cause}); start http-tunnel-host \
         with the same --transport and --addr"
    )]
    TimedOut {
        address: String,
        waited_ms: u128,
        cause: String,
    },
}

/// The host's end of `--addr`.
#[derive(Debug)]
pub(crate) enum PeerListener {
    Tcp(TcpListener),
    /// The file is removed with the listener.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A plugin that has connected and not said anything yet.
#[derive(Debug)]
pub(crate) enum Newcomer {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl PeerListener {
    pub(crate) async fn bind(address: &PeerAddress) -> anyhow::Result<Self> {
        match address {
            PeerAddress::Path(path) => {
                let (listener, _file) = bind_unix(path)?;
                Ok(Self::Unix { listener, _file })
            }
            PeerAddress::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .with_context(|| format!("could not listen on '{address}'")),
        }
    }

    pub(crate) async fn accept(&self) -> anyhow::Result<Newcomer> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok(Newcomer::Tcp(socket))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                let (theirs, ours) = (socket.peer_cred()?.uid(), rustix::process::geteuid());
                if theirs != ours.as_raw() {
                    bail!(
                        "refused a peer of user {theirs}: this is user {}",
                        ours.as_raw()
                    );
                }
                Ok(Newcomer::Unix(socket))
            }
        }
    }
}

impl Newcomer {
    /// Tells the plugin why it can't attach.
    pub(crate) async fn refuse(mut self, reason: &str) -> anyhow::Result<()> {
        let answer = Answer::Refused(reason.to_owned());
        timeout(HANDSHAKE_TIMEOUT, self.say(&answer)).await?
    }

    /// Agrees with the plugin on the terms.
    pub(crate) async fn welcome(
        self,
        options: &TransportOptions,
        tunnels_max: usize,
    ) -> anyhow::Result<(Peer, Terms)> {
        timeout(HANDSHAKE_TIMEOUT, self.agree(options, tunnels_max))
            .await
            .context("a peer connected and said nothing")?
    }

    async fn agree(
        mut self,
        options: &TransportOptions,
        tunnels_max: usize,
    ) -> anyhow::Result<(Peer, Terms)> {
        let line = self.hear().await?;
        let slots = (options.transport == TransportKind::Shm).then(|| options.slots());
        let hello = match check_hello(&line, options, slots) {
            Ok(hello) => hello,
            Err(reason) => {
                self.say(&Answer::Refused(reason.clone())).await?;
                bail!("refused a plugin: {reason}");
            }
        };
        let window_bytes = options.window_bytes;
        let segment = slots.map(Segment::create).transpose()?;
        self.say(&Answer::Welcome {
            window_bytes,
            tunnels_max,
            slots,
        })
        .await?;
        let terms = Terms {
            role: Role::Opener,
            frame_bytes: options.frame_bytes(slots),
            window_bytes,
            peer_window_bytes: hello.window_bytes,
            tunnels_max,
        };
        let peer = match (self, segment) {
            (Self::Tcp(socket), _) => Peer::Tcp(socket),
            (Self::Unix(socket), None) => Peer::Unix(socket),
            (Self::Unix(socket), Some((segment, memory))) => {
                send_descriptor(&socket, memory).await?;
                Peer::Shm { socket, segment }
            }
        };
        Ok((peer, terms))
    }

    async fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        match self {
            Self::Tcp(socket) => say(socket, message).await,
            Self::Unix(socket) => say(socket, message).await,
        }
    }

    async fn hear(&mut self) -> anyhow::Result<String> {
        match self {
            Self::Tcp(socket) => hear(socket).await,
            Self::Unix(socket) => hear(socket).await,
        }
    }
}

/// Connects to the host, as soon as it is there, and agrees on the terms.
pub(crate) async fn attach(options: &TransportOptions) -> Result<(Peer, Terms), AttachError> {
    let started = Instant::now();
    loop {
        let cause = match timeout(HANDSHAKE_TIMEOUT, attempt(options)).await {
            Ok(Ok(Ok(attached))) => return Ok(attached),
            Ok(Ok(Err(reason))) => {
                return Err(AttachError::Refused {
                    address: options.addr.to_string(),
                    reason,
                });
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "it accepts and says nothing".to_owned(),
        };
        if started.elapsed() >= options.peer_timeout() {
            let address = options.addr.to_string();
            let waited_ms = started.elapsed().as_millis();
            return Err(AttachError::TimedOut {
                address,
                waited_ms,
                cause,
            });
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// One attempt; the inner error is the host's refusal.
async fn attempt(options: &TransportOptions) -> anyhow::Result<Result<(Peer, Terms), String>> {
    let mut host = match &options.addr {
        PeerAddress::Path(path) => Newcomer::Unix(UnixStream::connect(path).await?),
        PeerAddress::Tcp(address) => {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Newcomer::Tcp(socket)
        }
    };
    let hello = Hello {
        protocol: PROTOCOL,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        transport: options.transport,
        window_bytes: options.window_bytes,
        shm_slots: options.shm_slots,
        shm_slot_size: options.shm_slot_size,
    };
    host.say(&hello).await?;
    let line = host.hear().await?;
    let Ok(answer) = serde_json::from_str(&line) else {
        return Ok(Err(format!(
            "it answered '{line}', which is not the tunnel's protocol"
        )));
    };
    let (window_bytes, tunnels_max, slots) = match answer {
        Answer::Refused(reason) => return Ok(Err(reason)),
        Answer::Welcome {
            window_bytes,
            tunnels_max,
            slots,
        } => (window_bytes, tunnels_max, slots),
    };
    let terms = Terms {
        role: Role::Acceptor,
        frame_bytes: options.frame_bytes(slots),
        window_bytes: options.window_bytes,
        peer_window_bytes: window_bytes,
        tunnels_max,
    };
    let peer = match (host, slots) {
        (Newcomer::Tcp(socket), _) => Peer::Tcp(socket),
        (Newcomer::Unix(socket), None) => Peer::Unix(socket),
        (Newcomer::Unix(socket), Some(slots)) => {
            let memory = receive_descriptor(&socket).await?;
            let segment = Segment::open(&memory, slots)?;
            Peer::Shm { socket, segment }
        }
    };
    Ok(Ok((peer, terms)))
}

fn check_hello(
    line: &str,
    options: &TransportOptions,
    slots: Option<Slots>,
) -> Result<Hello, String> {
    let any: AnyHello = serde_json::from_str(line)
        .map_err(|_| format!("'{line}' is not the tunnel's protocol: is this a plugin?"))?;
    if any.protocol != PROTOCOL {
        return Err(format!(
            "the plugin speaks protocol {} (build {}), the host protocol {PROTOCOL} (build {}); \
             use binaries of one build",
            any.protocol,
            any.build,
            env!("CARGO_PKG_VERSION"),
        ));
    }
    let hello: Hello = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if hello.transport != options.transport {
        return Err(format!(
            "the plugin has --transport={}, the host --transport={}",
            hello.transport, options.transport
        ));
    }
    if let Some(slots) = slots {
        let differs = |theirs: Option<u32>, ours| theirs.is_some_and(|theirs| theirs != ours);
        if differs(hello.shm_slots, slots.count) || differs(hello.shm_slot_size, slots.size_bytes) {
            return Err(format!(
                "the plugin's --shm-slots or --shm-slot-size differ from the host's {} × {}; \
                 leave them out on the plugin",
                slots.count, slots.size_bytes
            ));
        }
    }
    Ok(hello)
}

async fn say(
    socket: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(socket.write_all(&line).await?)
}

async fn hear(socket: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut line = Vec::new();
    loop {
        match socket
            .read_u8()
            .await
            .context("the peer closed the connection")?
        {
            b'\n' => return String::from_utf8(line).context("not text"),
            byte => line.push(byte),
        }
        if line.len() > LINE_BYTES_MAX {
            bail!("a line of more than {LINE_BYTES_MAX} bytes");
        }
    }
}

/// Sends a descriptor with one byte to carry it.
async fn send_descriptor(socket: &UnixStream, descriptor: OwnedFd) -> io::Result<()> {
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(b"m")],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    };
    socket.async_io(Interest::WRITABLE, send).await
}

async fn receive_descriptor(socket: &UnixStream) -> anyhow::Result<OwnedFd> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(socket, &mut slices, &mut ancillary, flags)?;
        Ok(ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        }))
    };
    let received = socket.async_io(Interest::READABLE, receive).await?;
    received.context("the host sent no shared memory")
}
