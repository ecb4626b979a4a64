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
    hop::{RunningHop, Start, available, origin},
};
use crate::{
    catalog::{ConfigParts, ProbeHop},
    process::{ask_until, wait_until},
};

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
            let subject = format!("{}, {files} secrets", hop.name);
            session.order([subject.clone()])?;
            session.attempt(1, &subject, |session| {
                observe_hop(session, hop, files, &subject)
            })?;
        }
    }
    Ok(())
}

fn observe_hop(
    session: &mut Session<'_>,
    hop: &ProbeHop,
    files: u32,
    subject: &str,
) -> anyhow::Result<()> {
    let origin = origin(session)?;
    let texts: Vec<_> = (1..=files).map(|file| text(file, &[0])).collect();
    let start = Start {
        config: ConfigParts {
            origin: origin.front().port(),
            ..ConfigParts::default()
        },
        files: &texts,
        ..Start::default()
    };
    let running = RunningHop::start(session, hop, start)?;
    let mut client = Asker::new(&running);
    anyhow::ensure!(
        client.until(session, 1, 0, 200)?.is_some(),
        "a right secret isn't taken: {}",
        running.last_lines()
    );
    let steady = Steady::start(&running, files, session.definition().rate_rps);
    let cycles = session.cycles();
    session.say(&format!("{subject}: {cycles} rotations"));
    for cycle in 1..=cycles {
        session.go_on()?;
        rotate(
            session,
            &running,
            &mut client,
            &steady,
            (cycle, files, subject),
        )?;
    }
    drop(steady);
    running.stop()?;
    origin.stop()
}

/// Rotates all secrets and checks every one, old and new.
fn rotate(
    session: &mut Session<'_>,
    running: &RunningHop<'_>,
    client: &mut Asker,
    steady: &Steady,
    (cycle, files, subject): (u32, u32, &str),
) -> anyhow::Result<()> {
    write(running, 1..=files, &[cycle - 1, cycle])?;
    let begin = Instant::now();
    running.read_again();
    // The last file may be read last.
    let seen = client.until(session, files, cycle, 200)?;
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
    let gone = client.until(session, 1, cycle - 1, REFUSED)?;
    if let Some(at) = gone {
        session.add_time(cycle, subject, "last_old_us", at - begin)?;
    }
    // The steady client has asked often enough to have noticed.
    let asked = || (steady.shared.asked.load(Relaxed) >= ASKED_MIN).then_some(());
    let has_asked = ask_until(STEP_MAX, Duration::from_millis(5), asked);
    let steps = [seen.is_some(), gone.is_some(), has_asked.is_some()];
    let unfinished = steps.into_iter().filter(|is_done| !is_done).count();
    let (mut stale, mut refused) = (0, 0);
    for file in 1..=files {
        session.go_on()?;
        stale += usize::from(client.ask(file, cycle - 1) != Some(REFUSED));
        refused += usize::from(client.ask(file, cycle) != Some(200));
    }
    let counts = [
        ("stale_secrets", stale),
        ("refused_secrets", refused),
        ("unfinished_changes", unfinished),
        ("failed_requests", steady.shared.failed.swap(0, Relaxed)),
        ("requests", steady.shared.asked.swap(0, Relaxed)),
    ];
    for (measure, count) in counts {
        session.add_count(cycle, subject, measure, count)?;
    }
    Ok(())
}

/// Writes files with the secrets of some generations, each a line.
fn write(
    running: &RunningHop<'_>,
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
    fn new(running: &RunningHop<'_>) -> Self {
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

    /// Waits until a secret gets an answer with this status; returns when. `None` if it doesn't.
    fn until(
        &mut self,
        session: &Session<'_>,
        file: u32,
        generation: u32,
        status: u16,
    ) -> anyhow::Result<Option<Instant>> {
        let answered = ask_until(STEP_MAX, Duration::from_millis(1), || {
            let answered = self.ask(file, generation) == Some(status);
            (answered || session.go_on().is_err()).then(|| (answered, Instant::now()))
        });
        session.go_on()?;
        Ok(answered.filter(|(is_so, _)| *is_so).map(|(_, at)| at))
    }
}

impl Steady {
    fn start(running: &RunningHop<'_>, files: u32, rate_rps: u32) -> Self {
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
