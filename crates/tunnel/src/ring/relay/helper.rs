//! A second thread for writes that take long.
//!
//! The event loop is one thread, which is enough for small messages and the least work for them. A
//! quarter of a megabyte for each of several clients is more than one core can copy: of those
//! connections, some are lent to the helper, which writes them out and gives them back.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use mio::Waker;

use super::connection::{Connection, Progress};
use crate::ring::link::LinkError;

/// A connection that the peer has sent something to.
pub(super) struct Job {
    pub(super) lane: usize,
    pub(super) connection: Box<Connection>,
}

type Done = (Job, Result<Progress, LinkError>);

pub(super) struct Helper {
    exchange: Arc<Exchange>,
    thread: JoinHandle<()>,
}

/// What the two threads share.
struct Exchange {
    queues: Mutex<Queues>,
    work: Condvar,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Queues {
    jobs: VecDeque<Job>,
    done: VecDeque<Done>,
    /// The helper sleeps.
    helper_sleeps: bool,
    /// The event loop sleeps, and is to be woken.
    loop_sleeps: bool,
    ended: bool,
}

impl Helper {
    /// Wakes the event loop through `waker`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn new(waker: &Arc<Waker>) -> io::Result<Self> {
        let exchange = Arc::new(Exchange {
            queues: Mutex::default(),
            work: Condvar::new(),
            waker: waker.clone(),
        });
        let theirs = exchange.clone();
        let thread = thread::Builder::new()
            .name("relay-helper".to_owned())
            .spawn(move || {
                let _waking = WakeOnDrop(theirs.waker.clone());
                theirs.work();
            })?;
        Ok(Self { exchange, thread })
    }

    /// Hands over; how many.
    pub(super) fn lend(&self, jobs: impl Iterator<Item = Job>) -> usize {
        let mut queues = self.exchange.lock();
        let before = queues.jobs.len();
        queues.jobs.extend(jobs);
        let lent = queues.jobs.len() - before;
        let wake = std::mem::take(&mut queues.helper_sleeps);
        drop(queues);
        if wake {
            self.exchange.work.notify_one();
        }
        lent
    }

    /// A job that has not been begun, the last one first.
    pub(super) fn take_back(&mut self) -> Option<Job> {
        self.exchange.lock().jobs.pop_back()
    }

    /// A job that has been done.
    pub(super) fn done(&mut self) -> Option<Done> {
        let mut queues = self.exchange.lock();
        queues.loop_sleeps = false;
        queues.done.pop_front()
    }

    /// Whether something has been done, or never will be. If not, the event loop is woken when
    /// something has.
    pub(super) fn is_done(&mut self) -> bool {
        let mut queues = self.exchange.lock();
        queues.loop_sleeps = queues.done.is_empty();
        !queues.loop_sleeps || self.has_ended()
    }

    /// Whether the thread has ended, which it must not.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread; whatever it has not given back.
    pub(super) fn end(self) -> impl Iterator<Item = Job> {
        self.exchange.lock().ended = true;
        self.exchange.work.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the relay's helper panicked");
        }
        let Queues { jobs, done, .. } = std::mem::take(&mut *self.exchange.lock());
        jobs.into_iter().chain(done.into_iter().map(|(job, _)| job))
    }
}

impl Exchange {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queues = self.lock();
        while !queues.ended {
            let Some(mut job) = queues.jobs.pop_front() else {
                queues.helper_sleeps = true;
                queues = self
                    .work
                    .wait(queues)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queues);
            let result = job.connection.on_peer();
            queues = self.lock();
            queues.done.push_back((job, result));
            let wake = std::mem::take(&mut queues.loop_sleeps);
            drop(queues);
            if wake && let Err(error) = self.waker.wake() {
                tracing::warn!(%error, "could not wake the relay");
            }
            queues = self.lock();
        }
    }
}

/// However the thread ends: the event loop notices.
struct WakeOnDrop(Arc<Waker>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        if let Err(error) = self.0.wake() {
            tracing::warn!(%error, "could not wake the relay");
        }
    }
}
