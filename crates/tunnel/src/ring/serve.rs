//! An application in this process, served straight on lanes.
//!
//! One task, the dispatcher, takes what the peer has marked and wakes the lanes' own tasks; when
//! those have run, it wakes the peer, once for all of them, and sleeps if there is nothing to do.

mod stream;

use std::{
    future::poll_fn,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use shm_ring::Side;
use tokio::io::{Interest, unix::AsyncFd};

pub(crate) use self::stream::LaneStream;
use self::stream::SharedLane;
use super::{
    lane::{Lane, State},
    link::{Link, LinkError},
    relay::refuse,
};

/// The lanes of a session, as their tasks and the dispatcher share them.
#[derive(Debug)]
pub(super) struct Server {
    link: Arc<Link>,
    state: Mutex<ServerState>,
}

#[derive(Debug)]
struct ServerState {
    lanes: Vec<Option<Arc<SharedLane>>>,
    generations: Vec<u64>,
    /// Wakes the dispatcher when a lane has something for the peer. `None` while it is awake: it
    /// will look before it sleeps.
    dispatcher: Option<std::task::Waker>,
}

/// Serves until the link fails: gives every lane that the host opens to `serve_stream`, which
/// returns whether it wants it.
pub(crate) async fn serve(
    link: Arc<Link>,
    mut serve_stream: impl FnMut(LaneStream) -> bool,
) -> Result<(), LinkError> {
    let lanes = link.segment.geometry().lanes;
    let server = Arc::new(Server {
        state: Mutex::new(ServerState {
            lanes: (0..lanes).map(|_| None).collect(),
            generations: vec![0; lanes],
            dispatcher: None,
        }),
        link,
    });
    let _ending = EndOnDrop(server.clone());
    let bell = watch_bell(&server.link)?;
    let mut ready = Vec::new();
    poll_fn(|cx| {
        loop {
            server.link.ready.take(&mut ready);
            if ready.is_empty() {
                match server.poll_sleep(&bell, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(LinkError::Io(error))),
                }
            }
            for index in ready.drain(..) {
                if let Err(error) = server.on_peer(index, &mut serve_stream) {
                    return Poll::Ready(Err(error));
                }
            }
            // The lanes' tasks run first: they are in the queue before this one.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
    })
    .await
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that may be replaced; this one is owned"
)]
fn watch_bell(link: &Link) -> io::Result<AsyncFd<BellFd>> {
    let bell = BellFd(link.bell.as_fd().try_clone_to_owned()?);
    AsyncFd::with_interest(bell, Interest::READABLE)
}

impl Server {
    fn state(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the peer, then sleeps unless it has marked something meanwhile.
    fn poll_sleep(&self, bell: &AsyncFd<BellFd>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before the peer is woken: a lane that has something later finds the waker, and one that
        // found none was marked before.
        self.state().dispatcher = Some(cx.waker().clone());
        self.link.ring()?;
        self.link.parking.park();
        if self.link.ready.is_empty() {
            match bell.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                // Edge-triggered: its count need not be read.
                Poll::Ready(ready) => ready?.clear_ready(),
            }
        }
        self.link.parking.unpark();
        self.state().dispatcher = None;
        self.link.counters.wake_ups.add(1);
        Poll::Ready(Ok(()))
    }

    /// Makes sure that the peer will be woken for what was marked.
    fn announce(&self) {
        let dispatcher = self.state().dispatcher.take();
        if let Some(waker) = dispatcher {
            waker.wake();
        }
    }

    fn on_peer(
        self: &Arc<Self>,
        index: usize,
        serve_stream: &mut impl FnMut(LaneStream) -> bool,
    ) -> Result<(), LinkError> {
        let lane = self.state().lanes[index].clone();
        if let Some(lane) = lane
            && !lane.on_peer()?
        {
            return Ok(());
        }
        // Free, or free now: the host may have opened it again.
        let host = self.link.segment.state(index, Side::Host).read();
        let (generation, state) = Lane::decode(host);
        let mut shared = self.state();
        shared.lanes[index] = None;
        if generation <= shared.generations[index] {
            return Ok(());
        }
        shared.generations[index] = generation;
        let lane = Lane::new(&self.link, index, generation);
        if state == State::Reset {
            refuse(lane);
            return Ok(());
        }
        let lane = Arc::new(SharedLane::new(lane));
        shared.lanes[index] = Some(lane.clone());
        drop(shared);
        self.link.counters.tunnels_opened.add(1);
        self.link.counters.tunnels_open.add(1);
        // If it isn't wanted, dropping it resets the lane.
        if !serve_stream(LaneStream::new(lane, self.clone())) {
            tracing::debug!("a connection was not wanted");
        }
        Ok(())
    }
}

/// Ends every lane when the session does.
struct EndOnDrop(Arc<Server>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let lanes: Vec<_> = self
            .0
            .state()
            .lanes
            .iter_mut()
            .filter_map(Option::take)
            .collect();
        for lane in lanes {
            lane.on_session_end();
        }
        if let Err(error) = self.0.link.ring() {
            tracing::debug!(%error, "could not wake the peer");
        }
    }
}

struct BellFd(OwnedFd);

impl AsRawFd for BellFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}
