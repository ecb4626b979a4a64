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
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

/// What the two threads share.
struct Desk {
    papers: Mutex<Papers>,
    work: Condvar,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Papers {
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
        let desk = Arc::new(Desk {
            papers: Mutex::default(),
            work: Condvar::new(),
            waker: waker.clone(),
        });
        let theirs = desk.clone();
        let thread = thread::Builder::new()
            .name("relay-helper".to_owned())
            .spawn(move || {
                let _waking = WakeOnDrop(theirs.waker.clone());
                theirs.work();
            })?;
        Ok(Self { desk, thread })
    }

    /// Hands over; how many.
    pub(super) fn lend(&self, jobs: impl Iterator<Item = Job>) -> usize {
        let mut papers = self.desk.lock();
        let before = papers.jobs.len();
        papers.jobs.extend(jobs);
        let lent = papers.jobs.len() - before;
        let wake = std::mem::take(&mut papers.helper_sleeps);
        drop(papers);
        if wake {
            self.desk.work.notify_one();
        }
        lent
    }

    /// A job that has not been begun, the last one first.
    pub(super) fn take_back(&mut self) -> Option<Job> {
        self.desk.lock().jobs.pop_back()
    }

    /// A job that has been done.
    pub(super) fn done(&mut self) -> Option<Done> {
        let mut papers = self.desk.lock();
        papers.loop_sleeps = false;
        papers.done.pop_front()
    }

    /// Whether something has been done, or never will be. If not, the event loop is woken when
    /// something has.
    pub(super) fn is_done(&mut self) -> bool {
        let mut papers = self.desk.lock();
        papers.loop_sleeps = papers.done.is_empty();
        !papers.loop_sleeps || self.has_ended()
    }

    /// Whether the thread has ended, which it must not.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread; whatever it has not given back.
    pub(super) fn end(self) -> impl Iterator<Item = Job> {
        self.desk.lock().ended = true;
        self.desk.work.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the relay's helper panicked");
        }
        let Papers { jobs, done, .. } = std::mem::take(&mut *self.desk.lock());
        jobs.into_iter().chain(done.into_iter().map(|(job, _)| job))
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut papers = self.lock();
        while !papers.ended {
            let Some(mut job) = papers.jobs.pop_front() else {
                papers.helper_sleeps = true;
                papers = self
                    .work
                    .wait(papers)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(papers);
            let result = job.connection.on_peer();
            papers = self.lock();
            papers.done.push_back((job, result));
            let wake = std::mem::take(&mut papers.loop_sleeps);
            drop(papers);
            if wake && let Err(error) = self.waker.wake() {
                tracing::warn!(%error, "could not wake the relay");
            }
            papers = self.lock();
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
