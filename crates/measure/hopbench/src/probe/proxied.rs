//! The PROXY protocol in and out, on new connections: off, v1, v2, and a mismatch.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    Session,
    client::{Connection, NoReply},
    hop::{RunningHop, Start},
    server::Server,
};
use crate::catalog::{ConfigParts, ProbeHop};

/// Words of a configuration in which the PROXY protocol is off: what the hop accepts, and what it
/// sends.
pub(super) const PLAIN: [(&str, &str); 2] = [("accept", ACCEPTS[0]), ("send", SENDS[0].1)];

/// New connections of each case, for each cycle.
const CONNECTIONS: u32 = 20;

/// Time that an answer may take. A mismatch must be noticed far sooner.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// A header of the second version begins like this (the protocol's text, section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Words for what the hop accepts: no header, or a header of any version.
const ACCEPTS: [&str; 2] = ["accept-off", "accept-on"];

/// Headers that the hop sends, with the words for them.
const SENDS: [(Header, &str); 3] = [
    (Header::None, "send-off"),
    (Header::V1, "send-v1"),
    (Header::V2, "send-v2"),
];

/// Observes a hop in every combination of words that it has.
pub(super) fn observe(session: &mut Session<'_>, hop: &ProbeHop) -> anyhow::Result<()> {
    let has = |word: &str| hop.words.contains_key(word);
    for accept in ACCEPTS.into_iter().filter(|word| has(word)) {
        for (sent, send) in SENDS.into_iter().filter(|(_, word)| has(word)) {
            let subject = format!("{}, PROXY", hop.name);
            session.attempt(1, &subject, |session| {
                observe_words(session, hop, (accept, send), sent)
            })?;
        }
    }
    Ok(())
}

fn observe_words(
    session: &mut Session<'_>,
    hop: &ProbeHop,
    (accept, send): (&str, &str),
    sent: Header,
) -> anyhow::Result<()> {
    let target = Server::start(tell_header)?;
    let start = Start {
        config: ConfigParts {
            origin: target.port(),
            connections: CONNECTIONS * 2,
            words: &[("accept", accept), ("send", send)],
            ..ConfigParts::default()
        },
        ..Start::default()
    };
    let running = RunningHop::start(session, hop, start)?;
    let headers: &[Header] = match accept == ACCEPTS[0] {
        true => &[Header::None],
        false => &[Header::V1, Header::V2],
    };
    for header in headers {
        let (name, out) = (header.name(), sent.name());
        let subject = format!("{}, PROXY in {name}, out {out}", hop.name);
        for cycle in 1..=session.cycles() {
            session.go_on()?;
            for _ in 0..CONNECTIONS {
                let begin = Instant::now();
                let told = ask(running.front(), *header);
                session.add_time(cycle, &subject, "connection_us", begin.elapsed())?;
                let is_right = told.is_ok_and(|(told, from)| told == header.expected(sent, from));
                session.add_count(cycle, &subject, "wrong_headers", usize::from(!is_right))?;
            }
        }
    }
    if accept != ACCEPTS[0] {
        mismatch(session, hop, &running, sent)?;
    }
    running.stop()
}

/// Observes clients without a header where one is expected: they must be refused at once.
fn mismatch(
    session: &mut Session<'_>,
    hop: &ProbeHop,
    running: &RunningHop<'_>,
    sent: Header,
) -> anyhow::Result<()> {
    let subject = format!("{}, PROXY in missing, out {}", hop.name, sent.name());
    for cycle in 1..=session.cycles() {
        session.go_on()?;
        let begin = Instant::now();
        let answer = ask(running.front(), Header::None);
        session.add_time(cycle, &subject, "refusal_us", begin.elapsed())?;
        let hangs = matches!(answer, Err(NoReply::Late));
        session.add_count(cycle, &subject, "unrefused", usize::from(answer.is_ok()))?;
        session.add_count(cycle, &subject, "hanging", usize::from(hangs))?;
        // A hop that is gone refuses everything.
        ask(running.front(), Header::V1).context("after a mismatch, a right header fails")?;
    }
    Ok(())
}

/// A header that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    None,
    V1,
    V2,
}

/// Port of the client that the headers name.
const CLIENT_PORT: u16 = 40_001;

impl Header {
    fn name(self) -> &'static str {
        match self {
            Self::None => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::V1 => format!("PROXY TCP4 127.0.0.9 127.0.0.1 {CLIENT_PORT} 80\r\n").into_bytes(),
            Self::V2 => {
                let mut bytes = [
                    SIGNATURE,
                    &[0x21, 0x11, 0, 12],
                    &[127, 0, 0, 9, 127, 0, 0, 1],
                ]
                .concat();
                bytes.extend(CLIENT_PORT.to_be_bytes());
                bytes.extend(80_u16.to_be_bytes());
                bytes
            }
        }
    }

    /// Returns what the target must have been told about a client of this port.
    fn expected(self, sent: Self, own_port: u16) -> String {
        let port = match self {
            Self::None => own_port,
            Self::V1 | Self::V2 => CLIENT_PORT,
        };
        match sent {
            Self::None => Self::None.name().to_owned(),
            Self::V1 | Self::V2 => format!("{} {port}", sent.name()),
        }
    }
}

/// Opens a connection and asks which header the target got. Also returns the client's port.
fn ask(front: SocketAddr, header: Header) -> Result<(String, u16), NoReply> {
    let mut connection = Connection::open(front, ANSWER_MAX).map_err(NoReply::Dropped)?;
    let port = connection.port().map_err(NoReply::Dropped)?;
    let question = [header.bytes(), b"which\n".to_vec()].concat();
    connection.send(&question).map_err(NoReply::Dropped)?;
    Ok((connection.line()?, port))
}

/// Tells a client which header came with its question, and the port in it.
fn tell_header(mut stream: TcpStream) -> io::Result<()> {
    let mut received = Vec::new();
    let mut piece = [0; 512];
    while !received.ends_with(b"which\n") && received.len() < 4_096 {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&piece[..count]),
        }
    }
    let told = header_of(&received);
    stream.write_all(format!("{told}\n").as_bytes())
}

fn header_of(received: &[u8]) -> String {
    if received.starts_with(SIGNATURE) {
        let port = received
            .get(24..26)
            .map(|it| u16::from_be_bytes([it[0], it[1]]));
        return port.map_or_else(|| "v2 ?".to_owned(), |port| format!("v2 {port}"));
    }
    let text = String::from_utf8_lossy(received);
    match text.strip_prefix("PROXY TCP4 ") {
        Some(rest) => format!("v1 {}", rest.split(' ').nth(2).unwrap_or("?")),
        None if received == b"which\n" => "off".to_owned(),
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_is_what_is_told() {
        for header in [Header::None, Header::V1, Header::V2] {
            let received = [header.bytes(), b"which\n".to_vec()].concat();
            assert_eq!(header_of(&received), header.expected(header, 1));
        }
        assert_eq!(header_of(b"PROXY which\n"), "unknown");
    }
}
