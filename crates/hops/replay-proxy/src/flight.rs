//! Fetches that several clients share: the first asks the upstream, the others follow, each at its
//! own pace, wherever their connections are.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_proxy::BodyError;
use hyper::body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{Variant, vary::Vary},
    fields::Fields as _,
    received::Received,
    respond::trailer_map,
    spool::Spool,
};

/// All fetches that are under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<ByKey>>);

type ByKey = HashMap<Box<[u8]>, Arc<Flight>>;

/// One fetch.
#[derive(Debug)]
pub(crate) struct Flight {
    state: Mutex<State>,
    /// Cancelled once its head is known, or that there will be none.
    decided: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    spool: Option<Spool>,
    content: Content,
    end: Option<End>,
    waiting: Vec<Waker>,
}

/// The part that came so far, for those who follow.
#[derive(Debug)]
enum Content {
    Memory(Vec<Bytes>, u64),
    File(Arc<File>, u64),
}

#[derive(Clone, Debug)]
enum End {
    Cut,
    /// Complete, perhaps with trailers.
    Whole(Option<Bytes>),
}

/// The news for those who wait.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Everybody must ask for himself.
    Alone,
    /// There is an answer for all that ask alike.
    Answer(Arc<Received>, Arc<Vary>),
    /// There is no answer.
    Failed,
    /// There is a stored answer, which may be used, with the reason.
    Stored(Arc<Variant>, Arc<str>),
}

/// A request among those that ask for the same.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It is the first, and must fetch.
    First(Leading),
    /// Another one fetches.
    Follows(Arc<Flight>),
}

/// The duty to fetch. If it is dropped, those who wait are told that there is no answer.
#[derive(Debug)]
pub(crate) struct Leading {
    flights: Flights,
    key: Box<[u8]>,
    pub(crate) flight: Arc<Flight>,
}

/// Most bytes that are read from a file at a time.
const READ_BYTES: u64 = 64 * 1024;

impl Default for Content {
    fn default() -> Self {
        Self::Memory(Vec::new(), 0)
    }
}

impl Flights {
    /// Begins a fetch that nobody can join.
    pub(crate) fn alone(&self) -> Leading {
        let flight = Arc::new(Flight {
            state: Mutex::default(),
            decided: CancellationToken::new(),
        });
        Leading {
            flights: self.clone(),
            key: Box::default(),
            flight,
        }
    }

    /// Joins those who ask for `key`.
    pub(crate) fn join(&self, key: &[u8]) -> Joined {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(key) {
            return Joined::Follows(Arc::clone(flight));
        }
        let flight = Arc::new(Flight {
            state: Mutex::default(),
            decided: CancellationToken::new(),
        });
        flights.insert(key.into(), Arc::clone(&flight));
        Joined::First(Leading {
            flights: self.clone(),
            key: key.into(),
            flight,
        })
    }
}

impl Leading {
    /// Tells those who wait, and later ones, that there is an answer, or that each must ask for
    /// himself.
    pub(crate) fn decide(&self, outcome: Outcome) {
        let mut state = lock(&self.flight.state);
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        drop(state);
        self.flight.decided.cancel();
    }

    /// Lets later requests fetch for themselves, while those who follow go on.
    pub(crate) fn leave(&self) {
        let mut flights = lock(&self.flights.0);
        if flights
            .get(&self.key)
            .is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
        {
            flights.remove(&self.key);
        }
    }

    /// Begins the body.
    pub(crate) fn begin(&self, spool: Spool) {
        lock(&self.flight.state).spool = Some(spool);
    }

    /// Adds a piece of the body. Returns its length so far.
    pub(crate) fn push(&self, piece: &Bytes) -> u64 {
        let mut state = lock(&self.flight.state);
        let State {
            spool: Some(spool),
            content,
            ..
        } = &mut *state
        else {
            return 0;
        };
        spool.push(piece);
        let length = spool.length();
        match (spool.file(), &mut *content) {
            (Some(Ok(file)), Content::Memory(..)) => {
                *content = Content::File(Arc::new(file), length);
            }
            (_, Content::Memory(pieces, all)) => {
                pieces.push(piece.clone());
                *all = length;
            }
            (_, Content::File(_, all)) => *all = length,
        }
        wake(state);
        length
    }

    /// Takes the body, to store it. Those who read it go on.
    pub(crate) fn take(&self) -> Option<Spool> {
        lock(&self.flight.state).spool.take()
    }

    /// Ends the body, which is complete and stored.
    pub(crate) fn finish(self, trailers: Option<Bytes>) {
        let mut state = lock(&self.flight.state);
        state.end = Some(End::Whole(trailers));
        wake(state);
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.leave();
        let mut state = lock(&self.flight.state);
        if state.outcome.is_none() {
            state.outcome = Some(Outcome::Failed);
        }
        if state.end.is_none() {
            state.end = Some(End::Cut);
        }
        wake(state);
        self.flight.decided.cancel();
    }
}

impl Flight {
    /// Waits until it is known whether there is an answer.
    pub(crate) async fn outcome(&self) -> Outcome {
        self.decided.cancelled().await;
        let state = lock(&self.state);
        state.outcome.clone().unwrap_or(Outcome::Failed)
    }

    /// Returns a body that follows.
    pub(crate) fn body(self: &Arc<Self>, received: &Received) -> Following {
        let length = received.head.get("content-length");
        let length = length.and_then(|length| str::from_utf8(length).ok()?.parse().ok());
        Following {
            flight: Arc::clone(self),
            at: 0,
            piece: 0,
            length,
            is_over: false,
        }
    }
}

/// A body that follows a fetch.
#[derive(Debug)]
pub(crate) struct Following {
    flight: Arc<Flight>,
    at: u64,
    piece: usize,
    length: Option<u64>,
    is_over: bool,
}

/// The reason for which an answer is cut off.
#[derive(Debug, thiserror::Error)]
#[error("the upstream cut off the answer")]
struct Cut;

impl Following {
    fn next(&mut self, state: &mut State) -> io::Result<Option<Bytes>> {
        match &state.content {
            Content::Memory(pieces, _) => match pieces.get(self.piece) {
                Some(piece) => {
                    self.piece += 1;
                    Ok(Some(piece.clone()))
                }
                None => Ok(None),
            },
            Content::File(_, length) if self.at >= *length => Ok(None),
            Content::File(file, length) => {
                let bytes = (length - self.at).min(READ_BYTES);
                let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
                file.read_exact_at(&mut buffer, self.at)?;
                Ok(Some(buffer.into()))
            }
        }
    }
}

impl Body for Following {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let flight = Arc::clone(&self.flight);
        let mut state = lock(&flight.state);
        loop {
            match self.next(&mut state) {
                Ok(Some(piece)) => {
                    self.at += piece.len() as u64;
                    // The last byte tells the client that all is well, so it waits for the end.
                    let is_last = self.length.is_some_and(|length| self.at >= length);
                    if is_last && state.end.is_none() {
                        self.at -= piece.len() as u64;
                        self.piece = self.piece.saturating_sub(1);
                        break;
                    }
                    if is_last && matches!(state.end, Some(End::Cut)) {
                        return Poll::Ready(Some(Err(Cut.into())));
                    }
                    if piece.is_empty() {
                        continue;
                    }
                    self.is_over = is_last;
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
                Ok(None) => break,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        match &state.end {
            None => {
                let waker = context.waker();
                if !state.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
                    state.waiting.push(waker.clone());
                }
                Poll::Pending
            }
            Some(End::Cut) => Poll::Ready(Some(Err(Cut.into()))),
            Some(End::Whole(trailers)) => {
                self.is_over = true;
                let trailers = trailers.as_ref();
                Poll::Ready(trailers.map(|lines| Ok(Frame::trailers(trailer_map(lines)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.at)),
            None => SizeHint::default(),
        }
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
