//! Goal: HTTP routes keep to RFC 9110 and RFC 9112, and where the proxies that people use differ,
//! that is seen and argued. Method: one table of cases (`tests/cases`), run with raw sockets
//! against the real programs, between a client and a scripted origin of the test.
//!
//! `HTTP_CASES=TEXT` runs only the cases whose name contains the text.
//! `UPDATE_CONFORMANCE=1` writes `docs/HTTP-CONFORMANCE.md` again.

mod conformance;
#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use conformance::{
    case::{self, Case, Topic},
    check, http2, page, subject,
};

/// Number of cases that run at a time. Most of them only wait.
const CONCURRENCY: usize = 16;

fn topics() -> Vec<Topic> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    case::topics(&directory).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs all cases against a subject.
fn run(name: &str) {
    let topics = topics();
    let filter = std::env::var("HTTP_CASES").unwrap_or_default();
    let cases = topics.iter().flat_map(|topic| &topic.cases);
    let cases: Vec<&Case> = cases.filter(|case| case.name.contains(&filter)).collect();
    let refuses = cases.iter().map(|case| case.origin_refuses);
    let Some((subject, ports)) = subject::start(name, refuses) else {
        return;
    };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    let subject_name = if name == "forwarder" {
                        case::OURS
                    } else {
                        name
                    };
                    let expect = case.expected(subject_name);
                    let address = subject.addresses[index];
                    if let Err(text) = check::run(case, expect, address, &ports[index]) {
                        failures.lock().expect("fine").push((index, text));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("fine");
    failures.sort();
    let texts: Vec<_> = failures.into_iter().map(|(_, text)| text).collect();
    let count = texts.len();
    assert!(
        texts.is_empty(),
        "{name}: {count} of {} cases:\n{}",
        cases.len(),
        texts.join("\n")
    );
}

#[test]
fn ours_does_as_the_tables_say() {
    run("forwarder");
}

#[test]
fn haproxy_does_as_the_tables_say() {
    run("haproxy");
}

#[test]
fn nginx_does_as_the_tables_say() {
    run("nginx");
}

/// Runs the cases that curl asks in HTTP/2.
fn run_http2(name: &str) {
    let Some(curl) = processes::installed("curl") else {
        return;
    };
    let refuses = http2::CASES.iter().map(|_| false);
    let Some((subject, ports)) = subject::start(name, refuses) else {
        return;
    };
    let mut failures = Vec::new();
    for ((case, port), address) in http2::CASES.iter().zip(&ports).zip(&subject.addresses) {
        let ran = http2::run(case, &curl, &address.to_string(), port);
        match case.haproxy.filter(|_| name == "haproxy") {
            None => failures.extend(ran.err()),
            Some(why) if ran.is_ok() => failures.push(format!("'{}': not so: {why}", case.name)),
            Some(_) => {}
        }
    }
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
}

#[test]
fn ours_takes_http_2() {
    run_http2("forwarder");
}

#[test]
fn haproxy_takes_http_2() {
    run_http2("haproxy");
}

#[test]
fn there_are_enough_cases_with_names_of_their_own() {
    let topics = topics();
    let names: Vec<_> = topics
        .iter()
        .flat_map(|topic| topic.cases.iter().map(|case| (&topic.title, &case.name)))
        .collect();
    assert!(names.len() >= 150, "{} cases", names.len());
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "two cases have one name");
}

#[test]
fn the_page_shows_the_tables() {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("three below the root")
        .join("docs/HTTP-CONFORMANCE.md");
    let expected = page::page(&topics());
    if std::env::var_os("UPDATE_CONFORMANCE").is_some() {
        std::fs::write(&file, expected).expect("writable");
        return;
    }
    let found = std::fs::read_to_string(&file).expect("docs/HTTP-CONFORMANCE.md");
    let differs = expected.lines().zip(found.lines()).find(|(a, b)| a != b);
    assert_eq!(differs, None, "UPDATE_CONFORMANCE=1 writes it anew");
    assert_eq!(
        expected.len(),
        found.len(),
        "UPDATE_CONFORMANCE=1 writes it anew"
    );
}
