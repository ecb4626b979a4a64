//! ring: lanes in shared memory, no frames.
//!
//! | file | what |
//! |---|---|
//! | `link` | what both directions of a session share: the segment, the arena, the doorbells |
//! | `lane` | one connection's rings: bytes in, bytes out, how it ends |
//! | `relay` | sockets ⇄ lanes: the event loop of the host, and of a plugin with an upstream |
//! | `socket` | a local connection, as the event loop needs it |
//! | `serve` | an application in this process, served straight on lanes |
//!
//! Bytes go from the kernel into a lane's buffer or the arena and from there to the kernel: no copy
//! in user space. `shm-ring` has the memory and its rules.

mod lane;
mod link;
mod relay;
mod serve;
mod socket;

use std::{sync::Arc, thread};

use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::{oneshot, watch},
};

pub(crate) use self::{
    link::{Link, LinkError, Offer, Terms},
    relay::{Guard, Incoming, Relay, Upstream},
    serve::{LaneStream, serve},
    socket::RelaySocket,
};

/// Runs a relay on a thread of its own until the peer leaves (`Ok`), it fails, or `stopped` says
/// so.
pub(crate) async fn run_relay(
    link: Arc<Link>,
    upstream: Option<Upstream>,
    socket: UnixStream,
    stopped: watch::Receiver<bool>,
    started: impl FnOnce(Relay),
) -> Result<(), LinkError> {
    let (relay, event_loop) = Relay::new(link, upstream)?;
    started(relay.clone());
    // Ends the thread when this future is dropped, too.
    let stopping = StopOnDrop(relay);
    let (ended, end) = oneshot::channel();
    // Nobody listens if this was dropped.
    let body = move || drop(ended.send(event_loop()));
    let thread = thread::Builder::new()
        .name("relay".to_owned())
        .spawn(body)?;
    let mut end = std::pin::pin!(end);
    let result = tokio::select! {
        result = &mut end => result,
        over = until_over(socket, stopped) => {
            match over {
                Over::PeerGone => stopping.0.tell(Incoming::PeerGone),
                Over::Stopped => stopping.0.tell(Incoming::Stop),
            }
            end.await
        }
    };
    // Without a result it has panicked, which the join tells.
    match (result, thread.join()) {
        (Ok(result), Ok(())) => result,
        _ => Err(LinkError::Panicked),
    }
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    PeerGone,
    Stopped,
}

/// Until the peer has left or `stopped` says so.
pub(crate) async fn until_over(mut socket: UnixStream, mut stopped: watch::Receiver<bool>) -> Over {
    tokio::select! {
        // Nothing more is sent on the socket: a read returns when the peer is gone.
        _ = socket.read_u8() => Over::PeerGone,
        // An error means that nobody is left who could say so.
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => Over::Stopped,
    }
}

struct StopOnDrop(Relay);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.tell(Incoming::Stop);
    }
}
