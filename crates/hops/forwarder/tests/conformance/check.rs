//! Runs a case against a subject, and compares what was expected with what was found.

use std::{net::SocketAddr, sync::Arc};

use super::{
    bytes::shown,
    case::{Case, Expect, Message},
    client::{self, Outcome},
    exchange::{End, Exchange, Received, State},
    message::{Field, values},
    origin::{self, Port},
    wire::{Then, Whole},
};

/// Runs a case. Returns a text that says what was expected and found, if that differs.
pub(crate) fn run(
    case: &Case,
    expect: &Expect,
    address: SocketAddr,
    port: &Port,
) -> Result<(), String> {
    let exchange = Arc::new(Exchange::default());
    let outcome = origin::during(port, &case.origin, &exchange, || {
        let outcome = client::run(case, expect, address, &exchange);
        let wanted = expect.origin.iter().filter(|it| !it.is_optional).count();
        exchange.until(
            || format!("the origin did not see {wanted} requests to their end"),
            |state| {
                let settled = state.requests.iter().all(|it| it.is_whole.is_some());
                (settled && state.requests.len() >= wanted).then_some(())
            },
        );
        outcome
    });
    let state = exchange.state();
    let problems = problems(expect, &outcome, &state);
    if problems.is_empty() {
        return Ok(());
    }
    let found = found(expect, &outcome, &state);
    Err(report(case, &problems, &found, &state))
}

fn report(case: &Case, problems: &[String], found: &str, state: &State) -> String {
    let mut text = format!("'{}' ({})\n", case.name, case.source);
    for problem in problems {
        text += &format!("  {problem}\n");
    }
    text += &format!("  found, as a table writes it: {found}\n");
    let end = match state.client_end {
        None => "and the connection is open",
        Some(End::Closed) => "and the end",
        Some(End::Reset) => "and a reset",
    };
    text += &format!("  the client got: {} {end}\n", shown(&state.client));
    text + &format!("  the origin got: {}\n", shown(&state.origin))
}

/// Describes what was found in the words of the tables.
fn found(expect: &Expect, outcome: &Outcome, state: &State) -> String {
    let list = |messages: &[Received]| {
        let messages = messages.iter().map(|message| {
            let status = message.head.status();
            let status = status.map(|status| format!("status = {status}"));
            let whole = match message.is_whole {
                Some(true) => None,
                _ => Some("whole = \"no\"".to_owned()),
            };
            let parts: Vec<_> = status.into_iter().chain(whole).collect();
            format!("{{ {} }}", parts.join(", "))
        });
        messages.collect::<Vec<_>>().join(", ")
    };
    let (answers, origin) = (list(&outcome.answers.list), list(&state.requests));
    let then = match (expect.then, outcome.has_ended) {
        (Then::Ends, Some(true)) => "ends",
        (_, Some(true)) => "closed",
        (_, Some(false)) => "open",
        (_, None) => "any",
    };
    format!("{{ answers = [{answers}], then = \"{then}\", origin = [{origin}] }}")
}

fn problems(expect: &Expect, outcome: &Outcome, state: &State) -> Vec<String> {
    let mut problems = state.troubles.clone();
    let answers = &outcome.answers;
    // Bytes that the case expects need not be an answer.
    let mistake = answers.mistake.iter().filter(|_| expect.after.is_empty());
    problems.extend(mistake.cloned());
    compare("answer", &expect.answers, &answers.list, &mut problems);
    compare("request", &expect.origin, &state.requests, &mut problems);
    let expected = match expect.then {
        Then::Any => outcome.has_ended,
        Then::Open => Some(false),
        Then::Closed | Then::Ends => Some(true),
    };
    let differ = |name: &str, expected: String, found: String| {
        (expected != found).then(|| format!("{name}: expected {expected}, found {found}"))
    };
    let ended = |has_ended| match has_ended {
        Some(true) => "closed".to_owned(),
        Some(false) => "open".to_owned(),
        None => "not looked at".to_owned(),
    };
    problems.extend(differ(
        "the client's connection",
        ended(expected),
        ended(outcome.has_ended),
    ));
    problems.extend(differ(
        "bytes behind the answers",
        format!("'{}'", shown(&expect.after)),
        format!("'{}'", shown(&answers.rest)),
    ));
    let connections = expect.connections.map(|expected| {
        differ(
            "connections to the origin",
            expected.to_string(),
            state.connections.to_string(),
        )
    });
    problems.extend(connections.flatten());
    problems
}

/// Compares messages in their order; optional ones may be left out.
fn compare(what: &str, expected: &[Message], found: &[Received], problems: &mut Vec<String>) {
    let mut rest = found.iter().peekable();
    for (number, wanted) in (1..).zip(expected) {
        let is_it = |next: &&Received| {
            let status = next.head.status().unwrap_or_default();
            !wanted.is_optional || wanted.statuses.is_empty() || wanted.statuses.contains(&status)
        };
        match rest.next_if(is_it) {
            Some(message) => {
                let wrong = wrong(wanted, message);
                problems.extend(wrong.map(|text| format!("{what} {number}: {text}")));
            }
            None if wanted.is_optional => {}
            None => problems.push(format!("{what} {number}: expected, but there is none")),
        }
    }
    for more in rest {
        let line = shown(&more.head.line);
        problems.push(format!("{what}: expected no more, found '{line}'"));
    }
}

/// Returns what is wrong with a message.
fn wrong(wanted: &Message, found: &Received) -> impl Iterator<Item = String> {
    let mut texts = Vec::new();
    let status = found.head.status().unwrap_or_default();
    if !wanted.statuses.is_empty() && !wanted.statuses.contains(&status) {
        texts.push(format!(
            "expected status {:?}, found {status}",
            wanted.statuses
        ));
    }
    let is_whole = found.is_whole == Some(true);
    match wanted.whole {
        Whole::Yes if !is_whole => texts.push("expected whole, but it breaks off".to_owned()),
        Whole::No if is_whole => texts.push("expected to break off, but it is whole".to_owned()),
        _ => {}
    }
    if let Some(line) = &wanted.line
        && *line != found.head.line
    {
        let (line, other) = (shown(line), shown(&found.head.line));
        texts.push(format!("line: expected '{line}', found '{other}'"));
    }
    if let Some(body) = &wanted.body
        && *body != found.body.bytes
    {
        let (body, other) = (shown(body), shown(&found.body.bytes));
        texts.push(format!("body: expected '{body}', found '{other}'"));
    }
    for (name, _) in &wanted.has {
        let (expected, found) = (values(&wanted.has, name), found.head.values(name));
        if expected != found {
            texts.push(fields_text(name, &expected, &found));
        }
    }
    for (name, beginning) in &wanted.begins {
        let found = found.head.values(name);
        if !found
            .first()
            .is_some_and(|value| value.starts_with(beginning))
        {
            texts.push(fields_text(name, &[beginning], &found));
        }
    }
    for name in &wanted.lacks {
        let found = found.head.values(name.as_bytes());
        if !found.is_empty() {
            texts.push(fields_text(name.as_bytes(), &[], &found));
        }
    }
    if let Some(trailers) = &wanted.trailers
        && lower(trailers) != lower(&found.body.trailers)
    {
        let (expected, found) = (trailers.len(), found.body.trailers.len());
        texts.push(format!(
            "trailers: expected {expected}, found {found} or other ones"
        ));
    }
    texts.into_iter()
}

fn fields_text(name: &[u8], expected: &[&[u8]], found: &[&[u8]]) -> String {
    let list = |values: &[&[u8]]| {
        let values = values.iter().map(|value| format!("'{}'", shown(value)));
        match values.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "none".to_owned(),
            list => list,
        }
    };
    let (name, expected, found) = (shown(name), list(expected), list(found));
    format!("field '{name}': expected {expected}, found {found}")
}

fn lower(fields: &[Field]) -> Vec<Field> {
    let fields = fields.iter();
    let lower = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    lower.collect()
}
