//! Frames that wait to be sent, and the senders that wait for room.
//!
//! All tunnels of a session share one queue and one writer. Frames are put in by whoever has
//! something to say and taken out by the writer alone, so that what has come together is sent
//! together. Data may wait up to a bound; above it, tunnels stop reading their sockets and queue up
//! here for room, first come, first served.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use atomic_waker::AtomicWaker;

use super::{mux::Kind, rapace::Outgoing};

/// Data that may wait, in bytes. A few reads' worth: enough to keep the writer busy while tunnels
/// read on, and little enough to be still in the processor's cache when it is sent.
const DATA_BYTES_MAX: usize = 512 * 1024;

/// Room that is taken to be used by one waiting tunnel, in bytes: one read.
const ROOM_BYTES: usize = 64 * 1024;

/// Something that waits for room, woken through its own waker.
pub(super) trait Waiting {
    fn waker(&self) -> &AtomicWaker;
}

#[derive(Debug)]
pub(super) struct Outbox<W> {
    state: Mutex<State<W>>,
    writer: AtomicWaker,
}

#[derive(Debug)]
struct State<W> {
    /// Credit and openings, which go ahead of data: they are small, and somebody waits for them.
    urgent: VecDeque<Outgoing>,
    /// Data, ends and resets, whose order matters within a tunnel.
    ordered: VecDeque<Outgoing>,
    data_bytes: usize,
    waiting: VecDeque<Arc<W>>,
    closed: bool,
}

/// What the writer finds.
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
            closed: false,
        };
        Self { state: Mutex::new(state), writer: AtomicWaker::new() }
    }

    /// Queues frames. After [`Self::close`] they are dropped.
    pub(super) fn push(&self, frames: impl IntoIterator<Item = Outgoing>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        for frame in frames {
            state.data_bytes += frame.payload.len();
            match frame.kind {
                Kind::Credit | Kind::Open => state.urgent.push_back(frame),
                Kind::Data | Kind::End | Kind::Reset => state.ordered.push_back(frame),
            }
        }
        drop(state);
        self.writer.wake();
    }

    /// Whether there is room for data. If not, `tunnel` is woken when there may be; it must have
    /// registered its waker before.
    pub(super) fn has_room(&self, tunnel: &Arc<W>) -> bool {
        let mut state = self.lock();
        if state.data_bytes < DATA_BYTES_MAX {
            return true;
        }
        // Twice in the queue is harmless, but a tunnel that is polled often must not fill it.
        if !state.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, tunnel)) {
            state.waiting.push_back(tunnel.clone());
        }
        false
    }

    /// Takes the next frame to send, and gives the room it took to those who wait.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        let State { urgent, ordered, .. } = &mut *state;
        let Some(frame) = urgent.pop_front().or_else(|| ordered.pop_front()) else {
            return if state.closed { Next::Closed } else { Next::Nothing };
        };
        state.data_bytes -= frame.payload.len();
        let room = DATA_BYTES_MAX.saturating_sub(state.data_bytes);
        // Those woken may find nothing to send. When the queue has run empty everybody is woken, so
        // that nobody is left waiting for a writer that has nothing to do.
        let wake = match state.ordered.is_empty() {
            true => state.waiting.len(),
            false if room < DATA_BYTES_MAX / 2 => 0,
            false => room.div_ceil(ROOM_BYTES),
        };
        let wake = wake.min(state.waiting.len());
        let woken: Vec<Arc<W>> = state.waiting.drain(..wake).collect();
        drop(state);
        for tunnel in woken {
            tunnel.waker().wake();
        }
        Next::Frame(frame)
    }

    /// Waits until there is something to send, or nothing more will be.
    pub(super) async fn filled(&self) {
        poll_fn(|cx| self.poll_filled(cx)).await;
    }

    /// Takes no more frames; those who wait for room are woken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.writer.wake();
        for tunnel in waiting {
            tunnel.waker().wake();
        }
    }

    fn poll_filled(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.writer.register(cx.waker());
        let state = self.lock();
        match state.closed || !state.urgent.is_empty() || !state.ordered.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().expect("no panic while queueing")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::{Wake, Waker},
    };

    use bytes::Bytes;

    use super::*;

    #[derive(Default)]
    struct Tunnel(AtomicWaker);

    impl Waiting for Tunnel {
        fn waker(&self) -> &AtomicWaker {
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
        Outgoing { kind, tunnel: 1, value: 0, payload: Bytes::from(vec![0; bytes]) }
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
        outbox.push([frame(Kind::Data, 1), frame(Kind::End, 0), frame(Kind::Credit, 0)]);
        assert_eq!(kinds(&outbox), [Kind::Credit, Kind::Data, Kind::End]);
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
