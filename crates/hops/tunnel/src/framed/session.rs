//! One session with a peer: the tunnels that share a transport.
//!
//! Besides the tunnels' own tasks, a session has a writer task, which alone sends, and a receiver:
//! a task on a stream, a thread on shared memory. The receiver never waits for anything but the
//! peer: what a local socket doesn't take is stored, and credit bounds how much that is. So no
//! tunnel can hold up another, and the two directions can't wait for each other.

use std::{
    fmt, io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    mux::{Flow, FrameViolation, Kind, Role, Table},
    outbox::{Next, Outbox},
    rapace::{IncomingFrame, LinkError, Outgoing, Sender, ShmLink, ShmReceiver, StreamReceiver},
    tunnel::Tunnel,
};
use crate::counters::Counters;

/// The terms that both ends have agreed on, as seen from this end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionTerms {
    pub(crate) role: Role,
    /// Longest payload of a frame that this end sends, in bytes.
    pub(crate) frame_bytes: usize,
    /// Credit this end gives per tunnel, in bytes.
    pub(crate) window_bytes: u32,
    /// Credit the peer gives per tunnel, in bytes.
    pub(crate) peer_window_bytes: u32,
    /// Most tunnels open at a time; more are reset.
    pub(crate) tunnels_max: usize,
}

pub(crate) struct Session {
    /// A reference to itself, for the tunnels.
    this: Weak<Self>,
    terms: SessionTerms,
    table: Mutex<Table<Arc<Tunnel>>>,
    outbox: Outbox<Tunnel>,
    counters: Arc<Counters>,
    /// Tunnels that the peer has opened, for whoever connects them.
    opened: mpsc::UnboundedSender<Arc<Tunnel>>,
    /// The receiver's thread, on shared memory.
    threads: TaskTracker,
}

/// The receiving end of the transport.
#[derive(Debug)]
pub(super) enum Receiver {
    Shm(ShmReceiver),
    Stream(StreamReceiver),
}

impl Session {
    /// Creates a session. Also returns the queue of the tunnels that its peer will open.
    pub(crate) fn new(
        terms: SessionTerms,
        counters: Arc<Counters>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Arc<Tunnel>>) {
        counters.sessions.add(1);
        // The number of tunnels bounds the queue.
        let (opened, to_connect) = mpsc::unbounded_channel();
        let session = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            terms,
            table: Mutex::new(Table::new(terms.role)),
            outbox: Outbox::new(),
            counters,
            opened,
            threads: TaskTracker::new(),
        });
        (session, to_connect)
    }

    /// Opens a tunnel to the peer. Returns `None` if the session is over, or if so many frames wait
    /// for the peer that it must have stopped: clients that come and go would pile up more.
    pub(crate) fn open(&self) -> Option<Arc<Tunnel>> {
        if self.unread().is_some() {
            return None;
        }
        let mut table = self.table();
        let tunnel = table.open(|number| self.make(number))?;
        // Pushed under the lock, so that openings are sent in the order of their numbers.
        self.push([tunnel.opening()]);
        Some(tunnel)
    }

    /// Runs until the peer leaves (`Ok`), the transport fails, or `stopped` says so. What was sent
    /// before that, by either end, is still delivered. Then every tunnel is over.
    pub(super) async fn run(
        self: &Arc<Self>,
        sender: Sender,
        receiver: Receiver,
        mut stopped: watch::Receiver<bool>,
        peer_left: impl Future<Output = ()>,
    ) -> Result<(), LinkError> {
        let link = receiver.link();
        let close_link = || {
            if let Some(link) = &link {
                link.close();
            }
        };
        let mut writer = pin!(self.write(sender));
        let mut receiver = pin!(self.receive(receiver));
        // Kept to the end: it owns the socket whose closing tells the peer that nothing more comes.
        let mut peer_left = pin!(peer_left);
        let result = tokio::select! {
            result = &mut receiver => result,
            result = &mut writer => match result {
                // The peer has gone, but it may have sent something before.
                Err(error) => match timeout(LAST_WORDS_TIMEOUT, &mut receiver).await {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(error),
                },
                Ok(()) => Ok(()),
            },
            () = &mut peer_left => {
                // The receiver empties the ring before it ends.
                close_link();
                timeout(LAST_WORDS_TIMEOUT, &mut receiver).await.unwrap_or(Ok(()))
            }
            // An error means that the sender is gone, so nobody will say so.
            () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
                self.outbox.close();
                timeout(LAST_WORDS_TIMEOUT, &mut writer).await.unwrap_or(Ok(()))
            }
        };
        self.outbox.close();
        let tunnels = self.table().close();
        for tunnel in tunnels {
            tunnel.on_session_end();
        }
        // No thread that holds a tunnel outlives the session, unless it hangs in memory that the
        // peer has corrupted.
        close_link();
        self.threads.close();
        let _ = timeout(LAST_WORDS_TIMEOUT, self.threads.wait()).await;
        result
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn role(&self) -> Role {
        self.terms.role
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.terms.frame_bytes
    }

    pub(super) fn push(&self, frames: impl IntoIterator<Item = Outgoing>) {
        self.outbox.push(frames);
    }

    pub(super) fn has_room(&self, tunnel: &Arc<Tunnel>) -> bool {
        self.outbox.has_room(tunnel)
    }

    pub(super) fn leave_outbox(&self, tunnel: &Tunnel) {
        self.outbox.leave(tunnel);
    }

    /// Takes a tunnel off the table; frames that still arrive for it are late.
    pub(super) fn forget(&self, number: u32) {
        // Dropped after the lock is released, since this may be the last reference.
        let forgotten = self.table().remove(number);
        drop(forgotten);
    }

    /// Returns how many frames wait for the peer, if they are more than a peer that reads would let
    /// pile up.
    fn unread(&self) -> Option<usize> {
        let frames = self.outbox.control_frames();
        let most = UNREAD_FRAMES_MAX + UNREAD_TUNNEL_FRAMES_MAX * self.terms.tunnels_max;
        (frames > most).then_some(frames)
    }

    async fn write(&self, mut sender: Sender) -> Result<(), LinkError> {
        loop {
            match self.outbox.next() {
                Next::Frame(frame) => sender.send(frame).await?,
                Next::Nothing => {
                    sender.flush().await?;
                    self.outbox.filled().await;
                }
                Next::Closed => return sender.flush().await,
            }
        }
    }

    async fn receive(self: &Arc<Self>, receiver: Receiver) -> Result<(), LinkError> {
        match receiver {
            Receiver::Stream(mut receiver) => {
                let mut delivery = Delivery::new(self.clone());
                while let Some(frame) = receiver.receive().await? {
                    delivery.add(frame)?;
                    delivery.flush()?;
                }
                Ok(())
            }
            Receiver::Shm(receiver) => self.receive_on_thread(receiver).await,
        }
    }

    async fn receive_on_thread(
        self: &Arc<Self>,
        mut receiver: ShmReceiver,
    ) -> Result<(), LinkError> {
        // Closes the link when this future is dropped, which ends the thread.
        let _closing = CloseOnDrop(receiver.link());
        let mut delivery = Delivery::new(self.clone());
        let (runtime, token) = (Handle::current(), self.threads.token());
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("tunnel-receive".to_owned())
            .spawn(move || {
                let result = receiver.run(&runtime, |frame| match frame {
                    Some(frame) => delivery.add(frame),
                    None => delivery.flush(),
                });
                // Fails only if the session has ended for another reason.
                let _ = ended.send(result);
                drop((delivery, token));
            })?;
        // Without an answer, the thread has panicked over memory that the peer has corrupted.
        end.await.unwrap_or_else(|_| {
            Err(io::Error::other("the shared memory is corrupt: rapace gave up").into())
        })
    }

    fn make(&self, number: u32) -> Arc<Tunnel> {
        let flow = Flow::new(self.terms.window_bytes, self.terms.peer_window_bytes);
        let session = self
            .this
            .upgrade()
            .expect("called on a session that is alive");
        Arc::new(Tunnel::new(number, session, flow))
    }

    fn table(&self) -> MutexGuard<'_, Table<Arc<Tunnel>>> {
        self.table.lock().expect("no panic while looking up")
    }
}

/// Most frames other than data that may wait for the peer, apart from those below. The outbox
/// bounds data.
const UNREAD_FRAMES_MAX: usize = 65_536;
/// Most such frames in addition for each tunnel.
const UNREAD_TUNNEL_FRAMES_MAX: usize = 8;

/// How long either end may take for what was sent before the other left. It is in a socket's buffer
/// or a ring already.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends the thread that receives from shared memory, once it has emptied the ring.
struct CloseOnDrop(Arc<ShmLink>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Receiver {
    fn link(&self) -> Option<Arc<ShmLink>> {
        match self {
            Self::Shm(receiver) => Some(receiver.link()),
            Self::Stream(_) => None,
        }
    }
}

/// Frames on their way from the transport to their tunnels. Payloads that follow one another for
/// the same tunnel are written to its socket together.
struct Delivery {
    session: Arc<Session>,
    tunnel: Option<(u32, Arc<Tunnel>)>,
    frames: Vec<IncomingFrame>,
}

impl Delivery {
    fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            tunnel: None,
            frames: Vec::new(),
        }
    }

    fn add(&mut self, frame: IncomingFrame) -> Result<(), LinkError> {
        if let Some(frames) = self.session.unread() {
            return Err(FrameViolation::Unread(frames).into());
        }
        if frame.kind == Kind::Data {
            let same = self
                .tunnel
                .as_ref()
                .is_some_and(|(number, _)| *number == frame.tunnel);
            if !same {
                self.flush()?;
                let found = self.session.table().find(frame.kind, frame.tunnel)?;
                self.tunnel = found.map(|tunnel| (frame.tunnel, tunnel));
            }
            if self.tunnel.is_some() {
                self.frames.push(frame);
            }
            return Ok(());
        }
        self.flush()?;
        if frame.kind == Kind::Open {
            return self.open(frame.tunnel);
        }
        let found = self.session.table().find(frame.kind, frame.tunnel)?;
        if let Some(tunnel) = found {
            match frame.kind {
                Kind::Credit => tunnel.on_credit(frame.value)?,
                Kind::End => tunnel.on_end()?,
                Kind::Reset => tunnel.on_reset(),
                Kind::Data | Kind::Open => unreachable!("handled above"),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if let Some((_, tunnel)) = &self.tunnel
            && !self.frames.is_empty()
        {
            tunnel.on_data(&mut self.frames)?;
        }
        // Not kept: the tunnel may end, and its number is looked up again by the next frame.
        self.tunnel = None;
        Ok(())
    }

    fn open(&self, number: u32) -> Result<(), LinkError> {
        let session = &self.session;
        let full = session.table().len() >= session.terms.tunnels_max;
        let tunnel = session
            .table()
            .accept(number, |number| session.make(number))?;
        if full {
            tracing::warn!(
                limit = session.terms.tunnels_max,
                "too many tunnels: reset one"
            );
            tunnel.abort();
        } else if session.opened.send(tunnel.clone()).is_err() {
            // This end is stopping: nobody connects the tunnel any more.
            tunnel.abort();
        }
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
