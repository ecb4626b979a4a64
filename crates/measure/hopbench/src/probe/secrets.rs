//! Files of secrets that change while a hop serves: nothing is stale afterwards, nothing refused
//! that was right.
//!
//! A rotation has two steps, so that no client is left without a right secret: first every file
//! has the old and the new one, then the new one alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Fault, Session,
    client::Connection,
    hop::{Parts, RunningHop, available, origin},
    poll, wait_until,
};
use crate::{catalog::ProbeHop, process::Output};

/// Time that a step may take until it is seen.
const STEP_MAX: Duration = Duration::from_secs(20);

/// Time that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Requests of the steady client in each rotation.
const ASKED_MIN: usize = 20;

/// Status of an answer to a request with a wrong secret.
const REFUSED: u16 = 401;

/// A client that always has a right secret, until it is dropped.
struct Steady {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    generation: AtomicU32,
    asked: AtomicUsize,
    failed: AtomicUsize,
}

/// Observes every hop with every number of files.
pub(super) fn observe(session: &mut Session<'_>) -> anyhow::Result<()> {
    let hops = available(session)?;
    for files in session.sizes() {
        for hop in &hops {
            session.go_on()?;
            observe_hop(session, hop, files)?;
        }
    }
    Ok(())
}

fn observe_hop(session: &mut Session<'_>, hop: &ProbeHop, files: u32) -> anyhow::Result<()> {
    let origin = origin(session)?;
    let parts = Parts {
        origin: origin.front().port(),
        files: &(1..=files).map(|file| text(file, &[0])).collect::<Vec<_>>(),
        ..Parts::default()
    };
    let subject = format!("{}, {files} secrets", hop.name);
    let running = RunningHop::start(session, hop, &parts, Output::Log)?;
    let mut client = Asker::new(&running);
    anyhow::ensure!(
        client.until(1, 0, 200).is_some(),
        "'{subject}' doesn't take a right secret: {}",
        running.last_lines()
    );
    let steady = Steady::start(&running, files, session.definition.rate_rps);
    let cycles = session.cycles();
    session.say(&format!("{subject}: {cycles} rotations"));
    for cycle in 1..=cycles {
        session.go_on()?;
        rotate(
            session,
            &running,
            &mut client,
            &steady,
            (cycle, files, &subject),
        )?;
    }
    drop(steady);
    running.stop();
    origin.stop();
    Ok(())
}

/// Rotates all secrets and checks every one, old and new.
fn rotate(
    session: &mut Session<'_>,
    running: &RunningHop,
    client: &mut Asker,
    steady: &Steady,
    (cycle, files, subject): (u32, u32, &str),
) -> anyhow::Result<()> {
    write(running, 1..=files, &[cycle - 1, cycle])?;
    let begin = Instant::now();
    running.read_again();
    // The last file may be read last.
    let seen = client.until(files, cycle, 200);
    if let Some(at) = seen {
        session.add_time(cycle, subject, "first_new_us", at - begin)?;
    }
    steady.shared.generation.store(cycle, Relaxed);
    let stale = session.has_fault(Fault::StaleSecret);
    write(running, 1..=files, &[cycle])?;
    if stale {
        write(running, files..=files, &[cycle - 1, cycle])?;
    }
    let begin = Instant::now();
    running.read_again();
    let gone = client.until(1, cycle - 1, REFUSED);
    if let Some(at) = gone {
        session.add_time(cycle, subject, "last_old_us", at - begin)?;
    }
    // The steady client has asked often enough to have noticed.
    let asked = || (steady.shared.asked.load(Relaxed) >= ASKED_MIN).then_some(());
    poll(STEP_MAX, Duration::from_millis(5), asked);
    let unfinished = usize::from(seen.is_none()) + usize::from(gone.is_none());
    let stale = (1..=files).filter(|file| client.ask(*file, cycle - 1) != Some(REFUSED));
    let stale = stale.count();
    let refused = (1..=files).filter(|file| client.ask(*file, cycle) != Some(200));
    let refused = refused.count();
    let counts = [
        ("stale_secrets", stale),
        ("refused_secrets", refused),
        ("unfinished_changes", unfinished),
        ("failed_requests", steady.shared.failed.swap(0, Relaxed)),
        ("answers", steady.shared.asked.swap(0, Relaxed)),
    ];
    for (measure, count) in counts {
        session.add_count(cycle, subject, measure, count)?;
    }
    Ok(())
}

/// Writes files with the secrets of some generations, each a line.
fn write(
    running: &RunningHop,
    files: impl Iterator<Item = u32>,
    generations: &[u32],
) -> anyhow::Result<()> {
    for file in files {
        let (name, text) = text(file, generations);
        running.replace(&name, &text)?;
    }
    Ok(())
}

/// Returns the name and the text of a file with the secrets of some generations, each a line.
fn text(file: u32, generations: &[u32]) -> (String, String) {
    let lines = generations.iter().map(|it| secret(file, *it) + "\n");
    (format!("secrets/client-{file}"), lines.collect())
}

fn secret(file: u32, generation: u32) -> String {
    format!("secret-of-client-{file:06}-generation-{generation:06}")
}

/// A client that tries secrets, one after another.
struct Asker {
    front: std::net::SocketAddr,
    connection: Option<Connection>,
}

impl Asker {
    fn new(running: &RunningHop) -> Self {
        Self {
            front: running.front(),
            connection: None,
        }
    }

    /// Returns the status of the answer to a secret; `None` if there is no answer.
    fn ask(&mut self, file: u32, generation: u32) -> Option<u16> {
        let field = format!("Authorization: Bearer {}\r\n", secret(file, generation));
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.front, ANSWER_MAX).ok()?,
        };
        let reply = connection.get("secrets.example", "/small", &field).ok()?;
        if !reply.is_last {
            self.connection = Some(connection);
        }
        Some(reply.status)
    }

    /// Waits until a secret gets an answer with this status; returns when.
    fn until(&mut self, file: u32, generation: u32, status: u16) -> Option<Instant> {
        let pause = Duration::from_millis(1);
        poll(STEP_MAX, pause, || {
            let answered = self.ask(file, generation);
            (answered == Some(status)).then(Instant::now)
        })
    }
}

impl Steady {
    fn start(running: &RunningHop, files: u32, rate_rps: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, mut asker) = (Arc::clone(&shared), Asker::new(running));
        let begin = Instant::now();
        let thread = thread::spawn(move || {
            for turn in 0.. {
                wait_until(begin + Duration::from_secs(1) * turn / rate_rps);
                if theirs.is_over.load(Relaxed) {
                    return;
                }
                let generation = theirs.generation.load(Relaxed);
                let answered = asker.ask(turn % files + 1, generation);
                // A rotation may have come in between.
                let is_late = generation != theirs.generation.load(Relaxed);
                theirs.asked.fetch_add(1, Relaxed);
                if answered != Some(200) && !is_late {
                    theirs.failed.fetch_add(1, Relaxed);
                }
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A client that panicked has said so.
            let _ = thread.join();
        }
    }
}
