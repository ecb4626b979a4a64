//! An application in this process, served straight on lanes.
//!
//! One task, the dispatcher, takes the lanes that the peer has marked on any link and wakes the
//! lanes' own tasks. When those have run, it wakes each link's peer, once for all of them. If there
//! is nothing to do, it sleeps.

mod stream;

use std::{
    future::poll_fn,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use shm_ring::{Side, Violation};
use tokio::io::{Interest, unix::AsyncFd};

pub(crate) use self::stream::LaneStream;
use self::stream::SharedLane;
use super::{
    lane::{Lane, State},
    link::{Link, RelayError},
    relay::refuse,
    spin::Spin,
};
use crate::{counters::Counters, transport::SpinLimit};

/// How the lanes' tasks reach the dispatcher.
#[derive(Debug)]
pub(super) struct Dispatch {
    /// Wakes the dispatcher when a lane has something for the peer. `None` while it is awake: it
    /// then looks again and again, also before it sleeps.
    dispatcher: Mutex<Option<Waker>>,
    /// A violation that a lane's task has found. The dispatcher ends the session for it.
    violation: OnceLock<Violation>,
    counters: Arc<Counters>,
}

struct Dispatcher<F> {
    shards: Vec<Shard>,
    dispatch: Arc<Dispatch>,
    spin: Spin,
    /// Whether the peers have been told that this side sleeps.
    parked: bool,
    serve_stream: F,
    /// Lanes to look at. Kept to use its memory again.
    ready: Vec<usize>,
}

/// A link and its lanes.
struct Shard {
    link: Arc<Link>,
    bell: AsyncFd<BellFd>,
    lanes: Vec<Option<Arc<SharedLane>>>,
    /// Last generation of each lane that was opened.
    generations: Vec<u64>,
}

/// Serves until a link fails. Gives every lane that the host opens to `serve_stream`, which returns
/// whether it wants it.
pub(crate) async fn serve(
    links: Vec<Arc<Link>>,
    spin: SpinLimit,
    counters: &Arc<Counters>,
    serve_stream: impl FnMut(LaneStream) -> bool,
) -> Result<(), RelayError> {
    let shards: io::Result<Vec<Shard>> = links.into_iter().map(Shard::new).collect();
    let mut dispatcher = Dispatcher {
        shards: shards?,
        dispatch: Arc::new(Dispatch {
            dispatcher: Mutex::new(None),
            violation: OnceLock::new(),
            counters: counters.clone(),
        }),
        spin: Spin::new(spin, counters),
        parked: false,
        serve_stream,
        ready: Vec::new(),
    };
    poll_fn(|cx| dispatcher.poll(cx)).await
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that may be replaced; this one is owned"
)]
fn watch_bell(link: &Link) -> io::Result<AsyncFd<BellFd>> {
    let bell = BellFd(link.bell.as_fd().try_clone_to_owned()?);
    AsyncFd::with_interest(bell, Interest::READABLE)
}

impl Dispatch {
    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.dispatcher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that the peer will be woken for what was marked. Everyone but the dispatcher must
    /// call it after every mark.
    fn announce(&self) {
        let dispatcher = self.waker().take();
        if let Some(waker) = dispatcher {
            waker.wake();
        }
    }

    /// Ends the session for a violation by the peer.
    fn accuse(&self, violation: Violation) {
        // One violation is enough to end it.
        let _ = self.violation.set(violation);
        self.announce();
    }

    fn found_violation(&self) -> Result<(), RelayError> {
        match self.violation.get() {
            None => Ok(()),
            Some(violation) => Err((*violation).into()),
        }
    }
}

impl<F: FnMut(LaneStream) -> bool> Dispatcher<F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        self.wake(cx)?;
        loop {
            self.dispatch.found_violation()?;
            // This comes before other work begins: a link whose peer sleeps must not wait for the
            // other links.
            ring_all(&self.shards)?;
            let mut any = false;
            for shard in &mut self.shards {
                shard.link.ready.take(&mut self.ready);
                for index in self.ready.drain(..) {
                    any = true;
                    shard.on_peer(index, &self.dispatch, &mut self.serve_stream)?;
                }
            }
            if any {
                // The lanes' tasks run first: they are in the queue before this one.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.look()? {
                ready!(self.poll_sleep(cx))?;
            }
        }
    }

    /// Looks for work of the peers before sleeping, if it pays. Returns whether there is some.
    fn look(&mut self) -> Result<bool, RelayError> {
        let shards = &self.shards;
        let mut rung = Ok(());
        let found = self.spin.look(|| {
            // Tasks on other threads answer meanwhile, and their answers must not wait.
            rung = ring_all(shards);
            rung.is_err() || any_ready(shards)
        });
        rung?;
        Ok(found)
    }

    /// Wakes the peers, then sleeps unless one has marked something meanwhile.
    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        // Set before the peers are woken: a lane that has something later finds the waker, and one
        // that found none was marked before.
        *self.dispatch.waker() = Some(cx.waker().clone());
        // A task that found a violation before this could not wake anybody.
        self.dispatch.found_violation()?;
        ring_all(&self.shards)?;
        for shard in &self.shards {
            shard.link.parking.park();
        }
        self.parked = true;
        // Every bell is polled even if there is work already: one that isn't polled doesn't wake
        // this task.
        let rung = self.poll_bells(cx)?;
        if !rung && !any_ready(&self.shards) {
            return Poll::Pending;
        }
        self.dispatch.counters.wake_ups.add(1);
        self.unpark();
        Poll::Ready(Ok(()))
    }

    /// Ends a sleep, before anything else is done.
    fn wake(&mut self, cx: &mut Context<'_>) -> Result<(), RelayError> {
        if !self.parked {
            return Ok(());
        }
        // The bells are polled now. The next sleep would find an old ring and look in vain.
        if self.poll_bells(cx)? {
            self.dispatch.counters.wake_ups.add(1);
        }
        self.unpark();
        Ok(())
    }

    fn unpark(&mut self) {
        for shard in &self.shards {
            shard.link.parking.unpark();
        }
        self.parked = false;
        *self.dispatch.waker() = None;
    }

    /// Returns whether a bell has rung since the last call. If not, the next ring wakes this task.
    fn poll_bells(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut rung = false;
        for shard in &self.shards {
            if let Poll::Ready(ready) = shard.bell.poll_read_ready(cx) {
                // Edge-triggered: the bell's count need not be read.
                ready?.clear_ready();
                rung = true;
            }
        }
        Ok(rung)
    }
}

/// Wakes every peer that sleeps and for which a lane was marked.
fn ring_all(shards: &[Shard]) -> io::Result<()> {
    shards.iter().try_for_each(|shard| shard.link.ring())
}

fn any_ready(shards: &[Shard]) -> bool {
    shards.iter().any(|shard| !shard.link.ready.is_empty())
}

impl Shard {
    fn new(link: Arc<Link>) -> io::Result<Self> {
        let lanes = link.segment.geometry().lanes;
        Ok(Self {
            bell: watch_bell(&link)?,
            lanes: (0..lanes).map(|_| None).collect(),
            generations: vec![0; lanes],
            link,
        })
    }

    fn on_peer(
        &mut self,
        index: usize,
        dispatch: &Arc<Dispatch>,
        serve_stream: &mut impl FnMut(LaneStream) -> bool,
    ) -> Result<(), RelayError> {
        if let Some(lane) = &self.lanes[index]
            && !lane.on_peer()?
        {
            return Ok(());
        }
        // The lane was free, or is free now: the host may have opened it again.
        let host = self.link.segment.state(index, Side::Host).read();
        let (generation, state) = Lane::decode(host);
        self.lanes[index] = None;
        if generation <= self.generations[index] {
            return Ok(());
        }
        self.generations[index] = generation;
        let lane = Lane::new(&self.link, index, generation);
        if state == State::Reset {
            refuse(lane);
            return Ok(());
        }
        let lane = Arc::new(SharedLane::new(lane));
        self.lanes[index] = Some(lane.clone());
        dispatch.counters.tunnels_opened.add(1);
        dispatch.counters.tunnels_open.add(1);
        // A stream that isn't wanted is dropped, which resets the lane.
        if !serve_stream(LaneStream::new(lane, dispatch.clone())) {
            tracing::debug!("a connection was declined");
        }
        Ok(())
    }
}

/// Ends every lane when the session does.
impl Drop for Shard {
    fn drop(&mut self) {
        for lane in self.lanes.iter_mut().filter_map(Option::take) {
            lane.on_session_end();
        }
        if let Err(error) = self.link.ring() {
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
