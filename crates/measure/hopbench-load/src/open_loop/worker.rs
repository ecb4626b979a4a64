//! One thread's part of the load: a timer, and one task per connection.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::runtime::LocalRuntime;

use super::{
    connection::{CONNECT_MAX, Connection, Notes, TIMEOUT},
    deadline::Deadline,
    pacer::{Timer, now_ns},
    schedule::{Dropped, Schedule, Share, Timing},
    sleep::Sleeps,
    target::RequestTarget,
};
use crate::{
    Options,
    latency::{Durations, no_durations},
    tally::{Answer, Expected, Tally, add_counts},
};

/// A thread's connections, before the load.
#[derive(Debug)]
pub(crate) struct Worker {
    connections: Vec<Connection>,
    notes: Rc<Notes>,
    shared: Shared,
}

/// State that the tasks of a thread share.
#[derive(Debug)]
struct Shared {
    /// Start of the load, by the pacer's clock.
    start_ns: u64,
    timeout: Duration,
    expected: Expected,
    timer: Timer,
    sleeps: Sleeps,
    schedule: RefCell<Schedule>,
    seats: RefCell<Vec<Seat>>,
    /// Wakes the task that sets the timer.
    pacer: RefCell<Waker>,
    record: RefCell<Record>,
}

/// The mailbox of a connection's task.
#[derive(Clone, Debug)]
struct Seat {
    /// When the request to start was due, from the start of the load; `None` if there is none.
    due_ns: Option<u64>,
    task: Waker,
}

/// Measurements of one thread.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) tally: Tally,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) dropped: u64,
    pub(crate) dropped_late: u64,
    /// Times from when requests were due until they started.
    pub(crate) late: Durations,
    /// End of the last request, from the start of the load.
    pub(crate) end_ns: u64,
    pub(crate) connect_ns_max: Option<u64>,
}

impl Worker {
    /// Opens the connections. If one can't be opened, its first request tries again and the outcome
    /// is counted.
    pub(crate) async fn open(
        options: &Options,
        timing: Timing,
        target: RequestTarget,
        share: Share,
        sleeps: Sleeps,
    ) -> anyhow::Result<Self> {
        let (all, threads) = (options.concurrency.get(), share.threads);
        let count = all / threads + usize::from(share.thread < all % threads);
        let target = Rc::new(target);
        let notes = Rc::default();
        let bodies = options.bodies().map(|bodies| Rc::new(RefCell::new(bodies)));
        let connection = || {
            Connection::new(
                Rc::clone(&target),
                !options.no_keepalive,
                Rc::clone(&notes),
                bodies.clone(),
            )
        };
        let mut connections: Vec<Connection> =
            std::iter::repeat_with(connection).take(count).collect();
        if !options.no_keepalive {
            let open = open_all(&mut connections);
            // Connections that are late are opened by their first request.
            let limit = options.timeout().min(CONNECT_MAX);
            drop(tokio::time::timeout(limit, open).await);
        }
        let schedule = Schedule::new(timing, share, count);
        let shared = Shared {
            start_ns: 0,
            timeout: options.timeout(),
            expected: options.expected(),
            timer: Timer::new(schedule.interval_ns())?,
            sleeps,
            schedule: schedule.into(),
            seats: vec![Seat::empty(); count].into(),
            pacer: Waker::noop().clone().into(),
            record: Record::new()?.into(),
        };
        Ok(Self {
            connections,
            notes,
            shared,
        })
    }

    /// Runs the load from `start_ns` on.
    pub(crate) fn run(mut self, runtime: &LocalRuntime, start_ns: u64) -> anyhow::Result<Record> {
        self.shared.start_ns = start_ns;
        let shared = Rc::new(self.shared);
        for (index, connection) in self.connections.into_iter().enumerate() {
            runtime.spawn_local(serve(Rc::clone(&shared), index, connection));
        }
        runtime.block_on(poll_fn(|context| shared.poll_pace(context)))?;
        let mut record = shared.record.replace(Record::new()?);
        record.drop_rest(&shared.schedule.borrow())?;
        record.connect_ns_max = self.notes.connect_ns_max.get();
        let unasked = self.notes.unasked().into_iter().collect();
        add_counts(&mut record.tally.wrong_beside, unasked);
        Ok(record)
    }
}

/// Opens connections one after the other, so that no server's backlog overflows.
async fn open_all(connections: &mut [Connection]) {
    for connection in connections {
        drop(connection.open().await);
    }
}

/// Sends the requests that a connection is given, until the runtime ends.
async fn serve(shared: Rc<Shared>, index: usize, mut connection: Connection) {
    let mut deadline = Deadline::new(shared.timeout);
    // The task's waker never changes, so one copy is enough.
    let task = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    shared.seats.borrow_mut()[index].task = task;
    loop {
        let due_ns = connection.wait(|| shared.poll_seat(index)).await;
        let started_ns = now_ns();
        let outcome = deadline.hold(started_ns, connection.ask()).await;
        let ended_ns = now_ns();
        let outcome = outcome.unwrap_or_else(|| {
            connection.close();
            Err(TIMEOUT.to_owned())
        });
        shared.count(due_ns, started_ns, ended_ns, outcome);
        shared.release(index);
    }
}

impl Shared {
    /// Starts the requests that are due and sets the timer, until the load is over.
    fn poll_pace(&self, context: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        self.pacer.borrow_mut().clone_from(context.waker());
        while let Poll::Ready(fired) = self.timer.poll(context) {
            fired?;
        }
        let Some(now_ns) = now_ns().checked_sub(self.start_ns) else {
            self.timer.set(self.start_ns)?;
            return Poll::Pending;
        };
        self.note_sleep();
        self.start_due(now_ns);
        let schedule = self.schedule.borrow();
        if let Some(at_ns) = schedule.wake_ns(now_ns) {
            self.timer.set(self.start_ns + at_ns)?;
        }
        match schedule.is_over(now_ns) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    /// Tells the schedule of the last sleep. Must come before anything is started or released:
    /// nothing was while the thread slept.
    fn note_sleep(&self) {
        let until_ns = self.sleeps.until_ns(self.timer.due_ns());
        let from_ns = self.sleeps.begin_ns();
        let [from_ns, until_ns] =
            [from_ns, until_ns].map(|at_ns| at_ns.saturating_sub(self.start_ns));
        self.schedule.borrow_mut().slept(from_ns, until_ns);
    }

    fn start_due(&self, now_ns: u64) {
        let mut schedule = self.schedule.borrow_mut();
        while let Some(start) = schedule.start(now_ns) {
            let seat = &mut self.seats.borrow_mut()[start.connection];
            seat.due_ns = Some(start.due_ns);
            seat.task.wake_by_ref();
        }
    }

    /// Takes the request that a connection is given; returns when it was due.
    fn poll_seat(&self, index: usize) -> Poll<u64> {
        match self.seats.borrow_mut()[index].due_ns.take() {
            Some(due_ns) => Poll::Ready(due_ns),
            None => Poll::Pending,
        }
    }

    /// Frees a connection, and starts the requests that wait for one.
    fn release(&self, index: usize) {
        let now_ns = now_ns() - self.start_ns;
        self.note_sleep();
        self.schedule.borrow_mut().release(index, now_ns);
        self.start_due(now_ns);
        let schedule = self.schedule.borrow();
        let set = |at_ns| self.timer.is_set_to(self.start_ns + at_ns);
        if !schedule.wake_ns(now_ns).is_some_and(set) {
            self.pacer.borrow().wake_by_ref();
        }
    }

    fn count(&self, due_ns: u64, started_ns: u64, ended_ns: u64, outcome: Result<Answer, String>) {
        let due_ns = self.start_ns + due_ns;
        let record = &mut *self.record.borrow_mut();
        record.end_ns = record.end_ns.max(ended_ns - self.start_ns);
        // The histogram grows to hold any value.
        record.late.record(started_ns - due_ns).ok();
        let took_ns = ended_ns - due_ns;
        let error = match outcome {
            Ok(answer) => record
                .tally
                .answer(self.expected, answer, took_ns)
                .map_err(|error| error.to_string()),
            Err(error) => {
                record.tally.unanswered(took_ns, 1).ok();
                Err(error)
            }
        };
        if let Err(error) = error {
            *record.errors.entry(error).or_insert(0) += 1;
        }
    }
}

impl Seat {
    fn empty() -> Self {
        Self {
            due_ns: None,
            task: Waker::noop().clone(),
        }
    }
}

impl Record {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            tally: Tally::new()?,
            errors: BTreeMap::new(),
            dropped: 0,
            dropped_late: 0,
            late: no_durations()?,
            end_ns: 0,
            connect_ns_max: None,
        })
    }

    /// Counts the requests that were not started.
    fn drop_rest(&mut self, schedule: &Schedule) -> anyhow::Result<()> {
        let Dropped { by_path, late } = schedule.dropped();
        self.dropped = by_path + late;
        self.dropped_late = late;
        for (waited_ns, requests) in schedule.waiting_times_ns() {
            self.tally.unanswered(waited_ns, requests)?;
        }
        Ok(())
    }

    /// Adds the record of another thread.
    pub(crate) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.tally.add(other.tally)?;
        add_counts(&mut self.errors, other.errors);
        self.dropped += other.dropped;
        self.dropped_late += other.dropped_late;
        self.late.add(other.late)?;
        self.end_ns = self.end_ns.max(other.end_ns);
        self.connect_ns_max = self.connect_ns_max.max(other.connect_ns_max);
        Ok(())
    }
}
