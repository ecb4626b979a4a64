//! Threads that write what is long, one on each core.
//!
//! An event loop is one thread: enough for short messages, and the least work for them. Writing a
//! quarter of a megabyte is copying into buffers of the kernel, and what that costs depends on
//! where it is done: the client copies out again on its core, to whose allocator the buffers' pages
//! go back. On that core all of it stays in one cache, and the next answer finds the pages there.
//! So a connection that has a lot is lent to the helper on the core where the client was last
//! seen, unless the event loop is there itself.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use mio::Waker;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{
    BURST_BYTES,
    connection::{Connection, Progress},
};
use crate::ring::link::LinkError;

/// Shared by the event loops of a session; the threads end with it.
pub(in crate::ring) struct Helpers(Vec<Helper>);

struct Helper {
    core: usize,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A connection that has a lot to write.
struct Job {
    /// Where it goes if the helper panics, too.
    ticket: Ticket,
    connection: Box<Connection>,
}

struct Ticket {
    lane: usize,
    returns: Arc<Returns>,
    is_done: bool,
}

/// What an event loop gets back.
pub(super) struct Done {
    pub(super) lane: usize,
    pub(super) connection: Box<Connection>,
    pub(super) progress: Result<Progress, LinkError>,
}

/// Where an event loop gets back what it has lent.
pub(super) struct Returns {
    queue: Mutex<Queue>,
    came: Condvar,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Queue {
    /// Each with its lane; nothing of a helper that panicked.
    done: VecDeque<Option<Done>>,
    /// The event loop sleeps, and is to be woken.
    loop_sleeps: bool,
}

const THIS_THREAD: Pid = Pid::from_raw(0);

impl Helpers {
    /// One each on so many of the cores that this process may use.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(in crate::ring) fn start(count: usize) -> io::Result<Self> {
        let allowed = sched_getaffinity(THIS_THREAD)?;
        let cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
        cores
            .take(count)
            .map(Helper::start)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lends a connection to the helper on a core; gives it back if there is none.
    pub(super) fn lend(
        &self,
        core: usize,
        lane: usize,
        connection: Box<Connection>,
        returns: &Arc<Returns>,
    ) -> Result<(), Box<Connection>> {
        let helper = self.0.iter().find(|helper| helper.core == core);
        let Some(jobs) = helper.and_then(|helper| helper.jobs.as_ref()) else {
            return Err(connection);
        };
        let ticket = Ticket {
            lane,
            returns: returns.clone(),
            is_done: false,
        };
        jobs.send(Job { ticket, connection }).map_err(|unsent| {
            let Job {
                mut ticket,
                connection,
            } = unsent.0;
            ticket.is_done = true;
            connection
        })
    }
}

impl Helper {
    fn start(core: usize) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("relay-helper".to_owned())
            .spawn(move || {
                let mut only = CpuSet::new();
                let kept = only.set(core);
                let kept = kept.and_then(|()| sched_setaffinity(THIS_THREAD, &only));
                // It works wherever it is, then, which is right and not as fast.
                if let Err(error) = kept {
                    tracing::warn!(core, %error, "could not keep a helper on its core");
                }
                work(&received);
            })?;
        Ok(Self {
            core,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("a helper panicked");
        }
    }
}

fn work(jobs: &mpsc::Receiver<Job>) {
    let mut burst_bytes = 0;
    while let Ok(Job {
        mut ticket,
        mut connection,
    }) = jobs.recv()
    {
        let progress = connection.on_peer();
        burst_bytes += connection.take_written();
        ticket.is_done = true;
        let done = Done {
            lane: ticket.lane,
            connection,
            progress,
        };
        ticket.returns.put(Some(done));
        // The clients read it while it is in the cache.
        if burst_bytes >= BURST_BYTES {
            burst_bytes = 0;
            thread::yield_now();
        }
    }
}

impl Drop for Ticket {
    /// Without this, an event loop would wait forever for what a helper that panicked had.
    fn drop(&mut self) {
        if !self.is_done {
            self.returns.put(None);
        }
    }
}

impl Returns {
    /// Wakes the event loop through `waker`.
    pub(super) fn new(waker: &Arc<Waker>) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            came: Condvar::new(),
            waker: waker.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, done: Option<Done>) {
        let mut queue = self.lock();
        queue.done.push_back(done);
        let wake = std::mem::take(&mut queue.loop_sleeps);
        drop(queue);
        self.came.notify_one();
        if wake && let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "could not wake the relay");
        }
    }

    /// What has come back, or the news that it never will.
    pub(super) fn take(&self) -> Option<Result<Done, LinkError>> {
        let mut queue = self.lock();
        queue.loop_sleeps = false;
        let done = queue.done.pop_front()?;
        Some(done.ok_or(LinkError::Panicked))
    }

    /// Whether anything has come back. If not, the event loop is woken when it has.
    pub(super) fn is_some(&self) -> bool {
        let mut queue = self.lock();
        queue.loop_sleeps = queue.done.is_empty();
        !queue.loop_sleeps
    }

    /// Waits for what comes back; nothing of a helper that panicked.
    pub(super) fn wait(&self) -> Option<Done> {
        let queue = self
            .came
            .wait_while(self.lock(), |queue| queue.done.is_empty());
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.done.pop_front().flatten()
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;

    #[test]
    fn a_helper_that_panics_is_noticed() {
        let poll = Poll::new().expect("descriptors");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a descriptor"));
        let returns = Returns::new(&waker);
        let ticket = || Ticket {
            lane: 0,
            returns: returns.clone(),
            is_done: false,
        };
        assert!(returns.take().is_none());
        for _ in 0..2 {
            let held = ticket();
            let panicking = thread::spawn(move || {
                let _held = held;
                panic!("on purpose");
            });
            assert!(panicking.join().is_err());
        }
        assert!(returns.is_some());
        assert!(matches!(returns.take(), Some(Err(LinkError::Panicked))));
        assert!(returns.wait().is_none());
        assert!(!returns.is_some());
    }

    #[test]
    fn helpers_are_on_cores_that_may_be_used_and_end_with_their_owner() {
        let allowed = sched_getaffinity(THIS_THREAD).expect("known");
        let helpers = Helpers::start(CpuSet::count()).expect("threads");
        let cores: Vec<usize> = helpers.0.iter().map(|helper| helper.core).collect();
        let is_allowed = |core: &usize| allowed.is_set(*core) == Ok(true);
        assert_eq!(cores.len(), (0..CpuSet::count()).filter(is_allowed).count());
        assert!(cores.iter().all(is_allowed));
        assert!(Helpers::start(0).expect("none").is_empty());
    }
}
