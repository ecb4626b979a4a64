//! Requests at a fixed rate on kept connections, and what became of each.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::super::client::{Connection, NoReply};
use crate::process::wait_until;

/// Clients that ask for one route after another until this is dropped.
pub(super) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// A client shall break off its next request.
    drops_one: AtomicBool,
    records: Mutex<Vec<Record>>,
}

/// A request that has ended.
#[derive(Clone, Debug)]
struct Record {
    sent: Instant,
    ended: Instant,
    end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// Status 200, with this body.
    Answered(String),
    /// The connection was closed instead.
    Dropped,
    /// Another status, nothing in time, or no connection.
    Failed(String),
}

/// Answers of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// From the change to the first new answer.
    pub(super) first_new: Option<Duration>,
    /// From the change to the sending of the last request that got an old answer.
    pub(super) last_old: Duration,
    /// Those since the change before, like the failed ones.
    pub(super) dropped: usize,
    pub(super) failed: usize,
    /// Old answers to requests that were sent after a new answer had come.
    pub(super) reverted: usize,
    pub(super) requests: usize,
}

/// Number of clients.
const CLIENTS: u32 = 4;

/// Routes in a row that may give no new answer before the others are taken to be stale, too.
const UNANSWERED_MAX: usize = 10;

/// Time that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

impl Watch {
    pub(super) fn start(front: SocketAddr, routes: u32, rate_rps: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let interval = Duration::from_secs(1) * CLIENTS / rate_rps;
        let start = |client: u32| {
            let shared = Arc::clone(&shared);
            let begin = Instant::now() + interval * client / CLIENTS;
            thread::spawn(move || {
                let mut connection = None;
                for turn in 0.. {
                    wait_until(begin + interval * turn);
                    if shared.is_over.load(Relaxed) {
                        return;
                    }
                    // Together, the clients ask for all routes in turn.
                    let route = (turn * CLIENTS + client) % routes + 1;
                    let record = ask(&shared, front, &mut connection, route);
                    shared.records().push(record);
                }
            })
        };
        Self {
            threads: (0..CLIENTS).map(start).collect(),
            shared,
        }
    }

    /// Has a client break off its next request, as a faulty change would.
    pub(super) fn drop_one(&self) {
        self.shared.drops_one.store(true, Relaxed);
    }

    /// Returns whether a request was answered.
    pub(super) fn has_answer(&self) -> bool {
        let records = self.shared.records();
        let mut ends = records.iter().map(|record| &record.end);
        ends.any(|end| matches!(end, End::Answered(_)))
    }

    /// Says what went wrong last.
    pub(super) fn trouble(&self) -> String {
        let records = self.shared.records();
        match records.last().map(|record| &record.end) {
            None => "no request has ended".to_owned(),
            Some(End::Answered(body)) => format!("the answer is '{body}'"),
            Some(End::Dropped) => "the connection was closed".to_owned(),
            Some(End::Failed(why)) => why.clone(),
        }
    }

    /// Returns whether new answers have come since, and no old ones for a while.
    pub(super) fn is_settled(&self, begin: Instant, new: &str, quiet: Duration) -> bool {
        let records = self.shared.records();
        let is_new = |record: &Record| record.end == End::Answered(new.to_owned());
        let old_until = records
            .iter()
            .filter(|record| record.ended > begin && !is_new(record))
            .map(|record| record.ended)
            .max()
            .unwrap_or(begin);
        old_until.elapsed() > quiet && records.iter().any(|it| it.sent > begin && is_new(it))
    }

    /// Takes what was seen since the change before, and forgets all of it.
    pub(super) fn take(&mut self, begin: Instant, new: &str) -> Seen {
        let records = std::mem::take(&mut *self.shared.records());
        seen(&records, begin, new)
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A client that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Sends one request. A connection that the server has announced to close is not used again.
fn ask(shared: &Shared, front: SocketAddr, kept: &mut Option<Connection>, route: u32) -> Record {
    let sent = Instant::now();
    let record = |end| Record {
        sent,
        ended: Instant::now(),
        end,
    };
    let opened = match kept.take() {
        Some(connection) => Ok(connection),
        None => Connection::open(front, ANSWER_MAX),
    };
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => return record(End::Failed(error.to_string())),
    };
    if shared.drops_one.swap(false, Relaxed) {
        connection.break_off();
    }
    let (host, target) = place(route);
    match connection.get(&host, &target, "") {
        Ok(reply) => {
            if !reply.is_last {
                *kept = Some(connection);
            }
            let body = String::from_utf8_lossy(&reply.body).into_owned();
            record(match reply.status {
                200 => End::Answered(body),
                status => End::Failed(format!("status {status}: {body}")),
            })
        }
        Err(NoReply::Dropped(_)) => record(End::Dropped),
        Err(other) => record(End::Failed(other.to_string())),
    }
}

/// Returns the host and the target of a route.
fn place(route: u32) -> (String, String) {
    (format!("app-{route}.example"), format!("/app-{route}/"))
}

/// Asks for every route once; returns how many don't give the new answer.
pub(super) fn stale(front: SocketAddr, routes: u32, new: &str) -> usize {
    let mut kept: Option<Connection> = None;
    let mut is_new = |route: u32| {
        let (host, target) = place(route);
        let mut connection = kept
            .take()
            .map_or_else(|| Connection::open(front, ANSWER_MAX), Ok)
            .ok()?;
        let reply = connection.get(&host, &target, "").ok()?;
        if !reply.is_last {
            kept = Some(connection);
        }
        (reply.body == new.as_bytes()).then_some(())
    };
    let mut stale = 0;
    let mut unanswered = 0;
    for route in 1..=routes {
        // A connection that was kept may have been closed meanwhile.
        if is_new(route).or_else(|| is_new(route)).is_none() {
            stale += 1;
            unanswered += 1;
        } else {
            unanswered = 0;
        }
        // A hop that doesn't answer at all isn't asked for each.
        if unanswered > UNANSWERED_MAX {
            return (routes - route) as usize + stale;
        }
    }
    stale
}

fn seen(records: &[Record], begin: Instant, new: &str) -> Seen {
    let since = || records.iter().filter(|record| record.ended > begin);
    let is_new = |record: &Record| record.end == End::Answered(new.to_owned());
    let is_old = |record: &Record| matches!(&record.end, End::Answered(body) if body != new);
    let first_new = since().filter(|it| is_new(it)).map(|it| it.ended).min();
    let last_old = since().filter(|it| is_old(it)).map(|it| it.sent).max();
    let reverted = since().filter(|it| is_old(it) && first_new.is_some_and(|new| it.sent > new));
    let failed = |record: &&Record| matches!(record.end, End::Failed(_));
    Seen {
        first_new: first_new.map(|at| at - begin),
        last_old: last_old.map_or(Duration::ZERO, |at| at.saturating_duration_since(begin)),
        dropped: records.iter().filter(|it| it.end == End::Dropped).count(),
        failed: records.iter().filter(failed).count(),
        reverted: reverted.count(),
        requests: records.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_new_and_lost_answers_are_told_apart() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let record = |sent, ended, end: &End| Record {
            sent: at(sent),
            ended: at(ended),
            end: end.clone(),
        };
        let (old, new) = (
            End::Answered("odd".to_owned()),
            End::Answered("even".to_owned()),
        );
        let failed = End::Failed("status 502".to_owned());
        let records = [
            record(0, 0, &failed), // after the change before, and lost all the same
            record(1, 3, &old),
            record(2, 9, &old), // slow, but sent before the first new answer
            record(4, 5, &new),
            record(6, 7, &old), // one part of the hop still has the old routes
            record(7, 8, &End::Dropped),
            record(8, 9, &failed),
            record(9, 10, &new),
        ];
        let expected = Seen {
            first_new: Some(Duration::from_millis(5)),
            last_old: Duration::from_millis(6),
            dropped: 1,
            failed: 2,
            reverted: 1,
            requests: 8,
        };
        assert_eq!(seen(&records, begin, "even"), expected);
    }
}
