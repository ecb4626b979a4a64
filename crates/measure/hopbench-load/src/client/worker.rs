//! One thread's part of the load: a timer, and one task per connection.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{runtime::LocalRuntime, time::sleep};

use super::{
    Load,
    connection::{CONNECT_MAX, Connection, Notes, Subject, TIMEOUT},
    deadline::Deadline,
    pacer::{Timer, now_ns},
    profile::Profile,
    record::{Record, second_of},
    schedule::{Schedule, Share, Start},
    sleep::Sleeps,
};
use crate::{
    requests::Requests,
    tally::{Answer, add_counts},
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
    duration_ns: u64,
    timeout: Duration,
    think_time: Duration,
    requests: Arc<Requests>,
    /// Stages of the load, if it has some.
    stages: Option<Profile>,
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
    /// The request to start; `None` if there is none.
    start: Option<Start>,
    task: Waker,
}

impl Worker {
    /// Opens the connections. If one can't be opened, its first request tries again and the outcome
    /// is counted.
    pub(crate) async fn open(
        load: &Load<'_>,
        share: Share,
        sleeps: Sleeps,
    ) -> anyhow::Result<Self> {
        let options = load.options;
        let count = share.of(options.concurrency.get());
        let notes = Rc::new(Notes::default());
        let subject = Rc::new(Subject {
            front: load.front.clone(),
            requests: Arc::clone(&load.requests),
            keep_alive: !options.no_keepalive,
            notes: Rc::clone(&notes),
            bodies: RefCell::default(),
        });
        let connection = || Connection::new(Rc::clone(&subject));
        let mut connections: Vec<Connection> =
            std::iter::repeat_with(connection).take(count).collect();
        if !options.no_keepalive {
            let open = open_all(&mut connections);
            // Connections that are late are opened by their first request.
            let limit = options.timeout().min(CONNECT_MAX);
            drop(tokio::time::timeout(limit, open).await);
        }
        let numbers = Arc::clone(&load.numbers);
        let schedule = Schedule::new(load.timing.clone(), share, count, numbers);
        let stages = load.stages.clone();
        let record = Record::new(&load.requests, stages.as_ref())?;
        let shared = Shared {
            start_ns: 0,
            duration_ns: load.timing.duration_ms * 1_000_000,
            timeout: options.timeout(),
            think_time: load.think_time,
            requests: Arc::clone(&load.requests),
            stages,
            timer: Timer::new(schedule.interval_ns())?,
            sleeps,
            schedule: schedule.into(),
            seats: vec![Seat::empty(); count].into(),
            pacer: Waker::noop().clone().into(),
            record: record.into(),
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
        let empty = Record::new(&shared.requests, shared.stages.as_ref())?;
        let mut record = shared.record.replace(empty);
        let stages = shared.stages.as_ref();
        record.drop_rest(&shared.schedule.borrow(), &shared.requests, stages)?;
        record.connect_ns_max = self.notes.connect_ns_max.get();
        add_counts(
            &mut record.unasked,
            self.notes.unasked().into_iter().collect(),
        );
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
        let start = connection.wait(|| shared.poll_seat(index)).await;
        let turn = shared.requests.turn(start.number);
        let started_ns = now_ns();
        let outcome = deadline.hold(started_ns, connection.ask(turn)).await;
        let ended_ns = now_ns();
        let outcome = outcome.unwrap_or_else(|| {
            connection.close();
            Err(TIMEOUT.to_owned())
        });
        shared.count(start, started_ns, ended_ns, outcome);
        if !shared.think_time.is_zero() {
            let until_end_ns = (shared.start_ns + shared.duration_ns).saturating_sub(ended_ns);
            sleep(shared.think_time.min(Duration::from_nanos(until_end_ns))).await;
        }
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
            seat.start = Some(start);
            seat.task.wake_by_ref();
        }
    }

    /// Takes the request that a connection is given.
    fn poll_seat(&self, index: usize) -> Poll<Start> {
        match self.seats.borrow_mut()[index].start.take() {
            Some(start) => Poll::Ready(start),
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

    fn count(&self, start: Start, started_ns: u64, ended_ns: u64, outcome: Result<Answer, String>) {
        let turn = self.requests.turn(start.number);
        let expected = self.requests.expected(turn);
        let due_ns = self.start_ns + start.due_ns;
        let took_ns = ended_ns - due_ns;
        let record = &mut *self.record.borrow_mut();
        record.end_ns = record.end_ns.max(ended_ns - self.start_ns);
        // The histogram grows to hold any value.
        record.late.record(started_ns - due_ns).ok();
        record.kinds[turn.kind].count(expected, &outcome, took_ns);
        if let Some(stages) = &self.stages {
            let stage = stages.index(start.due_ns);
            record.stages[stage].count(expected, &outcome, took_ns);
            record.second(second_of(start.due_ns)).due += 1;
            let second = record.second(second_of(ended_ns - self.start_ns));
            second.count(expected, &outcome, took_ns);
        }
    }
}

impl Seat {
    fn empty() -> Self {
        Self {
            start: None,
            task: Waker::noop().clone(),
        }
    }
}
