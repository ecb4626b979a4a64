//! Frames that wait to be sent, and the senders that wait for room.
//!
//! All tunnels of a session share one queue and one writer. Anyone puts frames in, but only the
//! writer takes them out, so that frames that have come together are sent together. Data may wait
//! up to a bound. Above it, tunnels stop reading their sockets and queue up here for room, first
//! come, first served.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use atomic_waker::AtomicWaker;

use super::{mux::Kind, rapace::Outgoing};

/// Most bytes of data that may wait: a few reads. That is enough to keep the writer busy while
/// tunnels read on, and so little that it is still in the processor's cache when it is sent. With
/// 512 KiB, `/large` on one connection over a Unix socket took a fifth more CPU time in the plugin.
const DATA_BYTES_MAX: usize = 192 * 1024;

/// Bytes of room that one waiting tunnel is assumed to use: one read.
const ROOM_BYTES: usize = 64 * 1024;

/// How long an idle writer waits for tunnels that were given room, before it gives room to others.
/// An application may have turned to something else.
const UNUSED_TIMEOUT: Duration = Duration::from_millis(10);

/// Something that may wait for room.
pub(super) trait Waiting {
    fn turn(&self) -> &Turn;
}

/// One tunnel's place in the queue for room.
#[derive(Debug, Default)]
pub(super) struct Turn {
    waker: AtomicWaker,
    state: AtomicU8,
}

/// Not in the queue.
const AWAY: u8 = 0;
/// In the queue.
const QUEUED: u8 = 1;
/// Taken from the queue and woken: may put in the bytes of one read, whoever else waits.
const GRANTED: u8 = 2;
/// Will not come any more.
const GONE: u8 = 3;

impl Turn {
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

#[derive(Debug)]
pub(super) struct Outbox<W> {
    state: Mutex<State<W>>,
    writer: AtomicWaker,
    /// Number of frames other than data, which nothing else bounds. Changes only under the lock.
    control_frames: AtomicUsize,
}

#[derive(Debug)]
struct State<W> {
    /// Credit, which goes ahead of data: it is small, and somebody waits for it.
    urgent: VecDeque<Outgoing>,
    /// All other frames, in order. The order matters within a tunnel, and openings must not
    /// overtake the ends that made room for them.
    ordered: VecDeque<Outgoing>,
    data_bytes: usize,
    waiting: VecDeque<Arc<W>>,
    /// Number of tunnels that were given room and have not come for it yet.
    granted: usize,
    closed: bool,
}

/// Result of asking for the next frame.
#[derive(Debug)]
pub(super) enum Next {
    Frame(Outgoing),
    Nothing,
    Closed,
}

impl<W: Waiting> Outbox<W> {
    pub(super) fn new() -> Self {
        let state = State {
            urgent: VecDeque::new(),
            ordered: VecDeque::new(),
            data_bytes: 0,
            waiting: VecDeque::new(),
            granted: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            writer: AtomicWaker::new(),
            control_frames: AtomicUsize::new(0),
        }
    }

    /// Returns how many frames other than data wait.
    pub(super) fn control_frames(&self) -> usize {
        self.control_frames.load(Relaxed)
    }

    /// Queues frames. After [`Self::close`] they are dropped.
    pub(super) fn push(&self, frames: impl IntoIterator<Item = Outgoing>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        for frame in frames {
            state.data_bytes += frame.payload.len();
            self.count_control(&frame, 1);
            match frame.kind {
                Kind::Credit => state.urgent.push_back(frame),
                Kind::Data | Kind::End | Kind::Open | Kind::Reset => {
                    state.ordered.push_back(frame);
                }
            }
        }
        drop(state);
        self.writer.wake();
    }

    /// Returns whether `tunnel` may put in data now. If not, it is queued and woken when it may. It
    /// must have registered its waker before.
    pub(super) fn has_room(&self, tunnel: &Arc<W>) -> bool {
        let mut state = self.lock();
        // The turn changes only under the lock.
        let turn = &tunnel.turn().state;
        match turn.load(Relaxed) {
            GRANTED => {
                turn.store(AWAY, Relaxed);
                self.settle(&mut state);
                true
            }
            QUEUED => state.closed,
            // Nobody goes ahead of those who wait, or one fast tunnel would starve them.
            _ if state.data_bytes < DATA_BYTES_MAX && state.waiting.is_empty() => true,
            _ if state.closed => true,
            _ => {
                turn.store(QUEUED, Relaxed);
                state.waiting.push_back(tunnel.clone());
                false
            }
        }
    }

    /// Removes a tunnel that sends nothing more. The room that it was given or waits for is for
    /// others.
    pub(super) fn leave(&self, tunnel: &W) {
        let mut state = self.lock();
        if tunnel.turn().state.swap(GONE, Relaxed) == GRANTED {
            self.settle(&mut state);
        }
    }

    /// Records that room given to a tunnel is used, or never will be. The tunnel may have found
    /// nothing to send, so an idle writer must give room to the next one.
    fn settle(&self, state: &mut State<W>) {
        state.granted = state.granted.saturating_sub(1);
        if state.granted == 0 && !state.waiting.is_empty() {
            self.writer.wake();
        }
    }

    /// Takes the next frame to send, and gives the room it took to those who wait.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        let State {
            urgent, ordered, ..
        } = &mut *state;
        let Some(frame) = urgent.pop_front().or_else(|| ordered.pop_front()) else {
            return if state.closed {
                Next::Closed
            } else {
                Next::Nothing
            };
        };
        state.data_bytes -= frame.payload.len();
        self.count_control(&frame, -1);
        // Room that was given and not used yet is given to nobody else.
        let taken = state.data_bytes + state.granted * ROOM_BYTES;
        let room = DATA_BYTES_MAX.saturating_sub(taken);
        // Room isn't given one by one: tunnels that are woken together also read and are sent
        // together.
        if room >= DATA_BYTES_MAX / 2 {
            state.grant(room.div_ceil(ROOM_BYTES));
        }
        Next::Frame(frame)
    }

    /// Waits until there is something to send, or nothing more will come.
    pub(super) async fn filled(&self) {
        // Tunnels that were granted room are about to use it.
        if !self.lock().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        // While the queue is empty, nobody new comes to wait for room.
        while !self.lock().waiting.is_empty() {
            let filled = poll_fn(|cx| self.poll_filled(cx));
            match tokio::time::timeout(UNUSED_TIMEOUT, filled).await {
                Ok(()) => return,
                Err(_) => self.take_back(),
            }
        }
        poll_fn(|cx| self.poll_filled(cx)).await;
    }

    /// Counts no room as given any more. A tunnel that comes for its room all the same gets it.
    fn take_back(&self) {
        self.lock().granted = 0;
    }

    /// Takes no more frames, and wakes those who wait for room.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.grant(usize::MAX);
        drop(state);
        self.writer.wake();
    }

    fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.writer.register(cx.waker());
        let mut state = self.lock();
        if state.closed || !state.urgent.is_empty() || !state.ordered.is_empty() {
            return Poll::Ready(());
        }
        // Nobody may be left waiting for an idle writer.
        if state.granted == 0 {
            state.grant(DATA_BYTES_MAX.div_ceil(ROOM_BYTES));
        }
        Poll::Pending
    }

    fn count_control(&self, frame: &Outgoing, change: isize) {
        if frame.kind != Kind::Data {
            let frames = self.control_frames().wrapping_add_signed(change);
            self.control_frames.store(frames, Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().expect("no panic while queueing")
    }
}

impl<W: Waiting> State<W> {
    /// Gives room to the first `tunnels` that wait for it.
    fn grant(&mut self, tunnels: usize) {
        for _ in 0..tunnels {
            let still_there = |tunnel: &Arc<W>| tunnel.turn().state.load(Relaxed) != GONE;
            let Some(tunnel) = std::iter::from_fn(|| self.waiting.pop_front()).find(still_there)
            else {
                return;
            };
            tunnel.turn().state.store(GRANTED, Relaxed);
            tunnel.turn().wake();
            self.granted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::Wake,
    };

    use bytes::Bytes;

    use super::*;

    #[derive(Default)]
    struct Tunnel(Turn);

    impl Waiting for Tunnel {
        fn turn(&self) -> &Turn {
            &self.0
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn frame(kind: Kind, bytes: usize) -> Outgoing {
        Outgoing {
            kind,
            tunnel: 1,
            value: 0,
            payload: Bytes::from(vec![0; bytes]),
        }
    }

    fn kinds(outbox: &Outbox<Tunnel>) -> Vec<Kind> {
        std::iter::from_fn(|| match outbox.next() {
            Next::Frame(frame) => Some(frame.kind),
            Next::Nothing | Next::Closed => None,
        })
        .collect()
    }

    #[test]
    fn credit_goes_ahead_of_data_and_data_keeps_its_order() {
        let outbox = Outbox::<Tunnel>::new();
        outbox.push([
            frame(Kind::Data, 1),
            frame(Kind::End, 0),
            frame(Kind::Open, 0),
            frame(Kind::Credit, 0),
        ]);
        let in_order = [Kind::Credit, Kind::Data, Kind::End, Kind::Open];
        assert_eq!(kinds(&outbox), in_order);
    }

    #[test]
    fn who_waits_for_room_is_woken_once_the_queue_is_half_empty() {
        let outbox = Outbox::new();
        let tunnel = Arc::new(Tunnel::default());
        let count = Arc::new(Count::default());
        assert!(outbox.has_room(&tunnel));
        outbox.push((0..16).map(|_| frame(Kind::Data, DATA_BYTES_MAX / 16)));
        tunnel.0.register(&Waker::from(count.clone()));
        assert!(!outbox.has_room(&tunnel));
        assert!(!outbox.has_room(&tunnel));
        for _ in 0..7 {
            outbox.next();
        }
        assert_eq!(count.0.load(SeqCst), 0);
        outbox.next();
        assert_eq!(count.0.load(SeqCst), 1);
        assert!(outbox.has_room(&tunnel));
    }

    #[test]
    fn nobody_goes_ahead_of_those_who_wait() {
        let outbox = Outbox::new();
        let [patient, fast] = [(); 2].map(|()| Arc::new(Tunnel::default()));
        outbox.push((0..16).map(|_| frame(Kind::Data, DATA_BYTES_MAX / 16)));
        assert!(!outbox.has_room(&patient));
        outbox.next();
        assert!(
            !outbox.has_room(&fast),
            "there is room, but somebody waits for it"
        );
        for _ in 0..7 {
            outbox.next();
        }
        assert!(outbox.has_room(&patient));
    }

    #[test]
    fn an_idle_writer_leaves_nobody_waiting() {
        let outbox = Outbox::new();
        let tunnels: Vec<_> = (0..100).map(|_| Arc::new(Tunnel::default())).collect();
        outbox.push([frame(Kind::Data, DATA_BYTES_MAX)]);
        assert!(tunnels.iter().all(|tunnel| !outbox.has_room(tunnel)));
        outbox.next();
        // None of them uses the room it is given.
        while !outbox.lock().waiting.is_empty() {
            let idle = outbox.poll_filled(&mut Context::from_waker(Waker::noop()));
            assert!(idle.is_pending());
            outbox.take_back();
        }
        assert!(tunnels.iter().all(|tunnel| outbox.has_room(tunnel)));
    }

    #[test]
    fn room_is_not_given_again_before_it_is_used() {
        const AT_ONCE: usize = DATA_BYTES_MAX / ROOM_BYTES;
        let outbox = Outbox::new();
        let tunnels: Vec<_> = (0..100).map(|_| Arc::new(Tunnel::default())).collect();
        outbox.push((0..16).map(|_| frame(Kind::Data, DATA_BYTES_MAX / 16)));
        assert!(tunnels.iter().all(|tunnel| !outbox.has_room(tunnel)));
        // Sent while those who are given room have not come for it, as on other threads.
        while let Next::Frame(_) = outbox.next() {}
        for _ in 0..100 {
            let idle = outbox.poll_filled(&mut Context::from_waker(Waker::noop()));
            assert!(idle.is_pending());
        }
        let with_room = tunnels.iter().filter(|tunnel| outbox.has_room(tunnel));
        assert!((1..=AT_ONCE).contains(&with_room.count()));
    }

    #[test]
    fn who_leaves_keeps_no_room_from_others() {
        let outbox = Outbox::new();
        let [given, waiting, last] = [(); 3].map(|()| Arc::new(Tunnel::default()));
        outbox.push([frame(Kind::Data, DATA_BYTES_MAX)]);
        assert!(!outbox.has_room(&given));
        outbox.next();
        assert!(outbox.lock().waiting.is_empty(), "it was given room");
        outbox.push([frame(Kind::Data, DATA_BYTES_MAX)]);
        assert!(!outbox.has_room(&waiting));
        assert!(!outbox.has_room(&last));
        outbox.leave(&given);
        outbox.leave(&waiting);
        outbox.next();
        assert_eq!(outbox.lock().granted, 1);
        assert!(outbox.has_room(&last));
    }

    #[test]
    fn closing_wakes_who_waits_and_takes_no_more() {
        let outbox = Outbox::new();
        let tunnel = Arc::new(Tunnel::default());
        let count = Arc::new(Count::default());
        outbox.push([frame(Kind::Data, DATA_BYTES_MAX)]);
        tunnel.0.register(&Waker::from(count.clone()));
        assert!(!outbox.has_room(&tunnel));
        outbox.close();
        assert_eq!(count.0.load(SeqCst), 1);
        outbox.push([frame(Kind::Data, 1)]);
        assert_eq!(kinds(&outbox), [Kind::Data]);
        assert!(matches!(outbox.next(), Next::Closed));
    }
}
