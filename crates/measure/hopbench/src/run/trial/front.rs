//! The front of a path in one trial: where it is asked, and how.

use std::{path::PathBuf, sync::Arc};

use hopbench_analysis::record::FrontProtocol;

use super::TrialFill;
use crate::{
    catalog::{Fill as _, PathDefinition, TlsFile},
    observe::http::{Answer, Server},
    run::certificates::Certificates,
};

#[derive(Debug)]
pub(super) struct Front {
    pub(super) server: Server,
    /// File with the certificate of the authority that clients trust, if they ask over TLS.
    ca: Option<PathBuf>,
}

impl Front {
    /// Fills in the front of a path.
    pub(super) fn of(
        definition: &PathDefinition,
        fill: &mut TrialFill<'_>,
        certificates: Option<&Certificates>,
    ) -> anyhow::Result<Self> {
        let endpoint = definition.front.fill(fill)?.parse();
        let endpoint = endpoint.map_err(anyhow::Error::msg)?;
        let protocol = definition.front.protocol;
        let certificates = certificates.filter(|_| protocol.tls);
        let ca = certificates.map(|_| fill.tls(TlsFile::Ca)).transpose()?;
        let authority = certificates.map(|it| Arc::clone(it.client()));
        let server = Server::front(endpoint, protocol, authority);
        Ok(Self { server, ca })
    }

    /// Returns the options by which the load generator asks for a target.
    pub(super) fn options(&self, target: &str) -> Vec<String> {
        let server = &self.server;
        let mut options = vec![
            format!("--url={}{}{target}", server.scheme(), server.endpoint()),
            format!("--protocol={}", server.protocol().protocol.name()),
        ];
        let ca = self.ca.iter();
        options.extend(ca.map(|file| format!("--ca={}", file.display())));
        options
    }
}

/// Returns what is wrong with the answer to the request that a path answers when it is ready.
pub(super) fn is_ready(asked: FrontProtocol, answer: &Answer) -> Result<(), String> {
    let status = answer.status;
    if status == 200 {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.beginning);
    let speaks_tls = !asked.tls && status == 400 && PLAIN_TO_TLS.iter().any(|it| body.contains(it));
    let hint = match speaks_tls {
        true => "; it speaks TLS: begin 'front' with 'https://', or add '--tls' to 'quick'",
        false => "",
    };
    Err(format!("the status was {status}{}{hint}", said(&body)))
}

/// Words of servers that got HTTP where they expect TLS: those of nginx and Go, and of Apache.
const PLAIN_TO_TLS: [&str; 3] = ["HTTPS port", "HTTPS server", "SSL-enabled server port"];

/// Longest part of an answer that a message quotes, in characters.
const QUOTED_CHARS_MAX: usize = 100;

/// Returns the first line of an answer's body, for a message. It often says what is wrong.
fn said(body: &str) -> String {
    let line = body.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.map(|line| line.chars().take(QUOTED_CHARS_MAX).collect::<String>());
    line.map_or_else(String::new, |line| format!(": '{}'", line.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_by_its_first_line() {
        let long = "x".repeat(200);
        let quoted = format!(": '{}'", &long[..QUOTED_CHARS_MAX]);
        for (body, expected) in [("", ""), ("\n <b>No\u{1b}\nmore", ": '<b>No\\u{1b}'")] {
            assert_eq!(said(body), expected);
        }
        assert_eq!(said(&long), quoted);
    }

    #[test]
    fn a_server_that_expects_tls_is_recognized() {
        let answer = |status, body: &str| Answer {
            status,
            headers: Default::default(),
            length_bytes: 0,
            sha256: String::new(),
            beginning: body.as_bytes().to_vec(),
            is_followed: false,
        };
        let plain = FrontProtocol::default();
        let go = "Client sent an HTTP request to an HTTPS server.";
        let told = is_ready(plain, &answer(400, go)).expect_err("400");
        assert!(
            told.contains("begin 'front' with 'https://', or add"),
            "{told}"
        );
        let told = is_ready(plain, &answer(400, "no")).expect_err("400");
        assert_eq!(told, "the status was 400: 'no'");
        assert_eq!(is_ready(plain, &answer(200, go)), Ok(()));
    }
}
