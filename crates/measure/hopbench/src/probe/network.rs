//! Requests over slow networks: what a hop adds where each packet takes its time, and some are
//! lost.

mod link;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use self::link::{Condition, FAR, Link};
pub(crate) use self::link::{Entered, enter};
use super::{
    Fault, Session,
    client::Connection,
    hop::{RunningHop, Start, available, origin},
};
use crate::catalog::{ConfigParts, ProbeNetwork};

/// The subject that all others are compared with: the origin itself.
const NO_HOP: &str = "no hop";

/// Host of the requests.
const HOST: &str = "network.example";

/// Time that an answer may take: that of several repetitions of a packet.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Small requests of each connection, besides the first.
const REQUESTS: u32 = 10;

/// Requests of each connection for a large body.
const LARGE_REQUESTS: u32 = 2;

/// Targets of a small body and of a large one.
const TARGETS: [&str; 2] = ["/small", "/large"];

/// How much later each packet is with [`Fault::LatePackets`].
const LATE: Duration = Duration::from_millis(20);

/// Observes every hop in every network, and the direct connection.
pub(super) fn observe(session: &mut Session<'_>, entered: &Entered) -> anyhow::Result<()> {
    let link = match entered {
        Ok(()) => Link::start(session.toolbox(), session.rng.u64(..))
            .map_err(|error| format!("{error:#}")),
        Err(why) => Err(why.clone()),
    };
    let link = match link {
        Ok(link) => link,
        Err(why) => return session.note(format!("SKIPPED, nothing was observed: {why}")),
    };
    let hops = available(session)?;
    let origin = origin(session)?;
    let networks = &session.definition().networks;
    for network in networks {
        let names = hops.iter().map(|hop| hop.name.as_str());
        let named = [NO_HOP].into_iter().chain(names);
        session.order(named.map(|name| subject(network, name)))?;
    }
    let mut running = Vec::new();
    for hop in &hops {
        let config = ConfigParts {
            origin: origin.front().port(),
            ..ConfigParts::default()
        };
        let start = Start {
            config,
            ..Start::default()
        };
        match RunningHop::start(session, hop, start) {
            Ok(started) => running.push((hop.name.as_str(), started)),
            Err(error) => fail(session, &hop.name, &error)?,
        }
    }
    let mut subjects = vec![(NO_HOP, far(origin.front()))];
    let fronts = running.iter().map(|(name, it)| (*name, far(it.front())));
    subjects.extend(fronts);
    let right = bodies(origin.front())?;
    let cycles = session.cycles();
    for network in networks {
        session.say(&format!("{}: {cycles} times", network.name()));
        for cycle in 1..=cycles {
            session.rng.shuffle(&mut subjects);
            for (name, front) in &subjects {
                link.must_run()?;
                let is_late = *name != NO_HOP && session.has_fault(Fault::LatePackets);
                let late = if is_late { LATE } else { Duration::ZERO };
                link.set(Condition {
                    delay: Duration::from_millis(network.delay_ms.into()) + late,
                    loss_percent: network.loss_percent,
                });
                let subject = subject(network, name);
                session.attempt(cycle, &subject, |session| {
                    observe_connection(session, (cycle, &subject), *front, &right)
                })?;
            }
        }
    }
    for (name, running) in running {
        if let Err(error) = running.stop() {
            fail(session, name, &error)?;
        }
    }
    origin.stop()
}

/// Counts a failure of a hop in all networks. What the user has interrupted is none.
fn fail(session: &mut Session<'_>, name: &str, error: &anyhow::Error) -> anyhow::Result<()> {
    let networks = session.definition().networks.iter();
    let subjects: Vec<String> = networks.map(|network| subject(network, name)).collect();
    subjects
        .iter()
        .try_for_each(|subject| session.attempt(1, subject, |_| Err(anyhow::anyhow!("{error:#}"))))
}

fn subject(network: &ProbeNetwork, name: &str) -> String {
    format!("{}: {name}", network.name())
}

/// Returns the address behind the slow network of a server here.
fn far(front: SocketAddr) -> SocketAddr {
    (FAR, front.port()).into()
}

/// Returns the body of each of [`TARGETS`].
fn bodies(origin: SocketAddr) -> anyhow::Result<[Vec<u8>; 2]> {
    let mut connection = Connection::open(origin, ANSWER_MAX)?;
    let mut bodies = [Vec::new(), Vec::new()];
    for (body, target) in bodies.iter_mut().zip(TARGETS) {
        let reply = connection.get(HOST, target, "")?;
        anyhow::ensure!(reply.status == 200, "the origin has no '{target}'");
        *body = reply.body;
    }
    Ok(bodies)
}

/// Times requests on a new connection, and compares all answers.
fn observe_connection(
    session: &mut Session<'_>,
    (cycle, subject): (u32, &str),
    front: SocketAddr,
    right: &[Vec<u8>; 2],
) -> anyhow::Result<()> {
    let mut wrong = 0;
    let begin = Instant::now();
    let mut connection = Connection::open(front, ANSWER_MAX)?;
    let mut ask = |index: usize| -> anyhow::Result<()> {
        let reply = connection.get(HOST, TARGETS[index], "")?;
        if reply.status != 200 || reply.body != right[index] {
            wrong += 1;
        }
        Ok(())
    };
    ask(0)?;
    session.add_time(cycle, subject, "first_answer_us", begin.elapsed())?;
    let small = (0..REQUESTS).map(|_| ("answer_us", 0));
    let large = (0..LARGE_REQUESTS).map(|_| ("large_us", 1));
    for (measure, index) in small.chain(large) {
        session.go_on()?;
        let begin = Instant::now();
        ask(index)?;
        session.add_time(cycle, subject, measure, begin.elapsed())?;
    }
    session.add_count(cycle, subject, "wrong_answers", wrong)
}
