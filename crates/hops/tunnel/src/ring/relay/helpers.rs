//! Threads for long writes, one on each core.
//!
//! An event loop is one thread. For short messages that is enough, and the least work. Writing a
//! quarter of a megabyte means copying it into the kernel's buffers, and the cost depends on the
//! core: the client copies the bytes out again on its own core, and the buffers' pages go back to
//! that core's allocator. If the write runs on that core, too, all of it stays in one cache, and
//! the next answer finds the pages there. So a connection that has a lot to write is lent to the
//! helper on the core where the client was last seen, unless the event loop itself runs there.
//!
//! A helper is started when it is first needed, so a machine with many cores has threads only where
//! clients are.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use mio::Waker;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{
    RelayOptions,
    burst::Burst,
    connection::{Connection, Progress},
};
use crate::ring::link::RelayError;

/// The helpers that the event loops of a session share. The threads end when it is dropped.
pub(in crate::ring) struct Helpers {
    /// The helper of each core, once one was needed there; `None` if there can be none.
    cores: Vec<OnceLock<Option<Helper>>>,
    /// How many more helpers may be started.
    left: AtomicUsize,
    pauses: bool,
}

pub(super) struct Helper {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A connection that has a lot to write.
struct Job {
    lane: usize,
    connection: Box<Connection>,
    /// Returns the connection, or the news that the helper has panicked.
    ticket: Ticket,
}

struct Ticket {
    returns: Arc<Returns>,
    /// `None` as long as a helper has the connection.
    done: Option<Done>,
}

/// A connection that an event loop gets back.
pub(super) struct Done {
    pub(super) lane: usize,
    pub(super) connection: Box<Connection>,
    pub(super) progress: Result<Progress, RelayError>,
}

/// The queue from which an event loop gets back what it has lent.
pub(super) struct Returns {
    queue: Mutex<Queue>,
    came: Condvar,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Queue {
    /// Connections that came back; `None` for one whose helper panicked.
    done: VecDeque<Option<Done>>,
    /// Whether the event loop sleeps and must be woken.
    loop_sleeps: bool,
}

const THIS_THREAD: Pid = Pid::from_raw(0);

impl Helpers {
    /// Makes room for the helpers that the options allow. None is started yet.
    pub(in crate::ring) fn new(options: RelayOptions) -> Self {
        let cores = match options.helpers {
            0 => 0,
            _ => CpuSet::count(),
        };
        Self {
            cores: (0..cores).map(|_| OnceLock::new()).collect(),
            left: AtomicUsize::new(options.helpers),
            pauses: options.pauses,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cores.is_empty()
    }

    /// Returns the helper of a core, and starts it if this is the first time. Returns `None` if
    /// this process may not use the core, or if there are as many helpers as there may be.
    pub(super) fn on(&self, core: usize) -> Option<&Helper> {
        let helper = self.cores.get(core)?;
        helper.get_or_init(|| self.start(core)).as_ref()
    }

    fn start(&self, core: usize) -> Option<Helper> {
        let allowed = sched_getaffinity(THIS_THREAD).and_then(|allowed| allowed.is_set(core));
        let may = allowed == Ok(true)
            && self
                .left
                .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
                .is_ok();
        if !may {
            return None;
        }
        let started = Helper::start(core, self.pauses);
        started
            .inspect_err(|error| {
                tracing::warn!(core, %error, "could not start a helper; long answers take longer");
            })
            .ok()
    }
}

impl Helper {
    fn start(core: usize, pauses: bool) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("relay-helper".to_owned())
            .spawn(move || {
                let mut only = CpuSet::new();
                let kept = only.set(core);
                let kept = kept.and_then(|()| sched_setaffinity(THIS_THREAD, &only));
                // It then works on any core, which is correct but slower.
                if let Err(error) = kept {
                    tracing::warn!(core, %error, "could not pin a helper to its core");
                }
                work(&received, Burst::new(pauses));
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Lends a connection to the helper. If the helper panics, or has panicked before, `returns`
    /// gets that news.
    pub(super) fn lend(&self, lane: usize, connection: Box<Connection>, returns: &Arc<Returns>) {
        let ticket = Ticket {
            returns: returns.clone(),
            done: None,
        };
        let job = Job {
            lane,
            connection,
            ticket,
        };
        if let Some(jobs) = &self.jobs {
            // A job that isn't taken is dropped, and thus returned as lost.
            let _ = jobs.send(job);
        }
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

fn work(jobs: &mpsc::Receiver<Job>, mut burst: Burst) {
    while let Ok(Job {
        lane,
        mut connection,
        mut ticket,
    }) = jobs.recv()
    {
        let progress = connection.on_peer();
        burst.add(connection.take_written());
        ticket.done = Some(Done {
            lane,
            connection,
            progress,
        });
        drop(ticket);
        burst.pause_if_long();
    }
}

impl Drop for Ticket {
    /// Returns the connection. Without this, an event loop would wait forever for one whose helper
    /// panicked.
    fn drop(&mut self) {
        self.returns.put(self.done.take());
    }
}

impl Returns {
    /// Creates a queue that wakes its event loop through `waker`.
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

    pub(super) fn put(&self, done: Option<Done>) {
        let mut queue = self.lock();
        queue.done.push_back(done);
        let wake = std::mem::take(&mut queue.loop_sleeps);
        drop(queue);
        self.came.notify_one();
        if wake && let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "could not wake the relay");
        }
    }

    /// Takes a connection that has come back, or the news that it never will.
    pub(super) fn take(&self) -> Option<Result<Done, RelayError>> {
        let mut queue = self.lock();
        queue.loop_sleeps = false;
        let done = queue.done.pop_front()?;
        Some(done.ok_or(RelayError::Panicked))
    }

    /// Returns whether anything has come back. If not, the event loop looks again and isn't woken.
    pub(super) fn has_come(&self) -> bool {
        !self.lock().done.is_empty()
    }

    /// Returns whether anything has come back. If not, the event loop is woken when something has.
    pub(super) fn is_some(&self) -> bool {
        let mut queue = self.lock();
        queue.loop_sleeps = queue.done.is_empty();
        !queue.loop_sleeps
    }

    /// Waits for a connection to come back; `None` if its helper panicked.
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
    use crate::transport::{Mechanism, Tuning};

    #[test]
    fn a_helper_that_panics_is_noticed() {
        let poll = Poll::new().expect("descriptors");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a descriptor"));
        let returns = Returns::new(&waker);
        let ticket = || Ticket {
            returns: returns.clone(),
            done: None,
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
        assert!(matches!(returns.take(), Some(Err(RelayError::Panicked))));
        assert!(returns.wait().is_none());
        assert!(!returns.is_some());
    }

    #[test]
    fn helpers_are_on_cores_that_may_be_used_and_end_with_their_owner() {
        let allowed = sched_getaffinity(THIS_THREAD).expect("known");
        let is_allowed = |core: &usize| allowed.is_set(*core) == Ok(true);
        let expected: Vec<usize> = (0..CpuSet::count()).filter(is_allowed).collect();
        let cores = |threads: usize| -> Vec<usize> {
            let helpers = Helpers::new(RelayOptions::new(&Tuning::default(), threads));
            let has_helper = |core: &usize| helpers.on(*core).is_some();
            // Cores that no machine has are asked for, too.
            let cores: Vec<usize> = (0..2 * CpuSet::count()).filter(has_helper).collect();
            // A helper that runs is found again, and no other is started.
            assert!(cores.iter().all(has_helper));
            cores
        };
        // One thread has no helper: there is no other core to write on.
        for threads in [1, 2, 8, 16, 32, 128, CpuSet::count()] {
            let most = if threads == 1 { 0 } else { threads };
            let first = &expected[..most.min(expected.len())];
            assert_eq!(cores(threads), first, "{threads} threads");
        }
        let tuning = Tuning {
            ring_without: vec![Mechanism::Helpers],
            ..Tuning::default()
        };
        assert!(Helpers::new(RelayOptions::new(&tuning, 2)).is_empty());
    }
}
