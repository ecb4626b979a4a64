//! Cases that curl asks in HTTP/2, without TLS and without an upgrade.

use std::{path::Path, sync::Arc};

use super::{
    bytes::bytes,
    case::Step,
    exchange::Exchange,
    message::find,
    origin::{self, Port},
};
use crate::processes::{command, output, text};

/// A request that curl makes, and its outcome.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Arguments of curl, behind those that all have.
    arguments: &'static [&'static str],
    /// Answer of the origin, as the tables write it. It then closes the connection.
    origin: &'static str,
    /// Parts of the request that the origin gets.
    request: &'static [&'static str],
    /// Parts of the answer, with its head.
    answer: &'static [&'static str],
    /// Parts that the answer must not have.
    lacks: &'static [&'static str],
    /// Whether curl gets a whole answer.
    is_whole: bool,
    /// Why HAProxy differs.
    pub(crate) haproxy: Option<&'static str>,
}

const OK: &str = "HTTP/1.1 200 OK\nContent-Length: 2\n\nok";

/// Part of each curl's arguments. Errors have an exit code, and fields come before the body.
const ALWAYS: [&str; 6] = [
    "--http2-prior-knowledge",
    "--silent",
    "--include",
    "--max-time",
    "60",
    "--path-as-is",
];

pub(crate) const CASES: [Case; 9] = [
    Case {
        name: "GET",
        arguments: &[
            "/a%2Fb//c/../d?e",
            "-H",
            "Host: a.example",
            "-H",
            "X-Forwarded-For: 9.9.9.9",
        ],
        origin: OK,
        request: &[
            "GET /a%2Fb//c/../d?e HTTP/1.1\r\n",
            "host: a.example\r\n",
            "x-forwarded-for: 127.0.0.1\r\n",
        ],
        answer: &["HTTP/2 200", "\r\n\r\nok"],
        lacks: &[],
        is_whole: true,
        haproxy: None,
    },
    Case {
        name: "POST",
        arguments: &["/", "--data-binary", "hello world"],
        origin: OK,
        request: &[
            "POST / HTTP/1.1\r\n",
            "content-length: 11\r\n",
            "hello world",
        ],
        answer: &["HTTP/2 200"],
        lacks: &[],
        is_whole: true,
        haproxy: None,
    },
    Case {
        name: "an upload without a length",
        arguments: &["/", "--data-binary", "hello world", "-H", "Content-Length:"],
        origin: OK,
        request: &[
            "POST / HTTP/1.1\r\n",
            "transfer-encoding: chunked\r\n",
            "b\r\nhello world\r\n",
        ],
        answer: &["HTTP/2 200"],
        lacks: &[],
        is_whole: true,
        haproxy: None,
    },
    Case {
        name: "HEAD",
        arguments: &["/", "--head"],
        origin: "HTTP/1.1 200 OK\nContent-Length: 1234\n\n",
        request: &["HEAD / HTTP/1.1\r\n"],
        answer: &["HTTP/2 200", "content-length: 1234"],
        lacks: &[],
        is_whole: true,
        haproxy: None,
    },
    Case {
        name: "fields of the origin's connection",
        arguments: &["/"],
        origin: "HTTP/1.1 200 OK\nConnection: X-Own, keep-alive\nX-Own: 1\nKeep-Alive: timeout=5\n\
                 Transfer-Encoding: chunked\nX-Kept: b\n\n5\nhello\n0\n\n",
        request: &[],
        answer: &["HTTP/2 200", "x-kept: b", "hello"],
        lacks: &["connection:", "x-own", "keep-alive", "transfer-encoding"],
        is_whole: true,
        haproxy: Some("It doesn't remove fields that Connection names."),
    },
    Case {
        name: "repeated fields",
        arguments: &["/", "-H", "X-A: 1", "-H", "X-A: 2"],
        origin: "HTTP/1.1 200 OK\nSet-Cookie: a=1\nSet-Cookie: b=2\nContent-Length: 2\n\nok",
        request: &["x-a: 1\r\nx-a: 2\r\n"],
        answer: &["set-cookie: a=1\r\nset-cookie: b=2\r\n"],
        lacks: &[],
        is_whole: true,
        haproxy: None,
    },
    Case {
        name: "an answer without a length",
        arguments: &["/"],
        origin: "HTTP/1.1 200 OK\n\nhello",
        request: &[],
        answer: &["HTTP/2 200", "hello"],
        lacks: &["content-length"],
        is_whole: true,
        haproxy: None,
    },
    Case {
        name: "an answer that breaks off",
        arguments: &["/"],
        origin: "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n",
        request: &[],
        answer: &[],
        lacks: &[],
        is_whole: false,
        haproxy: Some("It ends the stream as if the answer were whole."),
    },
    Case {
        name: "not an answer",
        arguments: &["/", "--data-binary", "x"],
        origin: "hello, who is there?\n\n",
        request: &[],
        answer: &["HTTP/2 502"],
        lacks: &["who is there"],
        is_whole: true,
        haproxy: None,
    },
];

/// Runs a case. Returns a text that says what was expected and found, if that differs.
pub(crate) fn run(case: &Case, curl: &Path, address: &str, port: &Port) -> Result<(), String> {
    let exchange = Arc::new(Exchange::default());
    let answer = Step::Send(bytes(case.origin)?);
    let script = vec![answer, Step::Do(super::wire::Action::Close)];
    let url = format!("http://{address}{}", case.arguments[0]);
    let done = origin::during(port, &[script], &exchange, || {
        let mut curl = command(curl);
        output(curl.args(ALWAYS).arg(url).args(&case.arguments[1..]))
    });
    let got = text(&done.stdout);
    let state = exchange.state();
    let (request, seen) = (text(&state.origin).to_lowercase(), &state.origin);
    let mut problems = state.troubles.clone();
    if done.status.success() != case.is_whole {
        problems.push(format!(
            "whole: expected {}, found {}",
            case.is_whole, done.status
        ));
    }
    let missing = case.answer.iter().filter(|part| !got.contains(**part));
    problems.extend(missing.map(|part| format!("the answer lacks {part:?}")));
    let unwanted = case.lacks.iter().filter(|part| got.contains(**part));
    problems.extend(unwanted.map(|part| format!("the answer has {part:?}")));
    let is_missing =
        |part: &&&str| find(seen, part.as_bytes()).is_none() && !request.contains(**part);
    let missing = case.request.iter().filter(is_missing);
    problems.extend(missing.map(|part| format!("the request lacks {part:?}")));
    if problems.is_empty() {
        return Ok(());
    }
    let (name, problems, request) = (case.name, problems.join("\n  "), text(seen));
    Err(format!(
        "'{name}'\n  {problems}\n  answer: {got:?}\n  request: {request:?}\n"
    ))
}
