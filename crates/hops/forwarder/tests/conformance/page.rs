//! Makes `docs/HTTP-CONFORMANCE.md` of the tables.

use std::fmt::Write as _;

use super::{
    case::{Case, Expect, Message, OTHERS, OURS, Topic},
    http2::CASES,
    subject::VERSIONS,
    wire::{Then, Whole},
};

/// Width of the page's text.
const COLUMNS: usize = 100;

/// Makes the page.
pub(crate) fn page(topics: &[Topic]) -> String {
    let cases: Vec<&Case> = topics.iter().flat_map(|topic| &topic.cases).collect();
    let mut page = include_str!("page.md").to_owned();
    let differing = OTHERS.map(|other| {
        let count = cases.iter().filter(|case| case.differs.contains_key(other));
        let (_, version) = VERSIONS
            .iter()
            .find(|(name, _)| *name == other)
            .expect("known");
        format!("{other} {version} differs in {}", count.count())
    });
    let summary = format!("There are {} cases. {}.", cases.len(), differing.join(", "));
    page = page.replace("SUMMARY", &wrapped(&summary, ""));
    for topic in topics {
        page += &section(topic);
    }
    page + &http2_section()
}

fn http2_section() -> String {
    let about = "curl asks these in HTTP/2, without TLS and without an upgrade first. The origin \
                 is still asked in HTTP/1.1. nginx 1.22 takes such clients only on a listener that \
                 takes no others, so it is left out.";
    let about = wrapped(about, "");
    let mut text = format!("\n## HTTP/2\n\n{about}\n\n");
    text += "| case | haproxy |\n|---|---|\n";
    for case in &CASES {
        let _ = writeln!(
            text,
            "| {} | {} |",
            case.name,
            case.haproxy.unwrap_or("same")
        );
    }
    text
}

fn section(topic: &Topic) -> String {
    let mut text = format!("\n## {}\n\n{}\n", topic.title, wrapped(&topic.about, ""));
    text += "\n<!-- reference: begin -->\n| case | source | ours |";
    for other in OTHERS {
        let _ = write!(text, " {other} |");
    }
    text += "\n|---|---|---|---|---|\n";
    let mut notes: Vec<String> = Vec::new();
    for case in &topic.cases {
        let ours = outcome(case.expected(OURS));
        let name = case.name.replace('|', "\\|");
        let _ = write!(text, "| {name} | {} | {ours} |", case.source);
        for other in OTHERS {
            let Some(differs) = case.differs.get(other) else {
                let theirs = outcome(case.expected(other));
                let is_exact = case.exact.contains_key(other) && theirs != ours;
                text += &match is_exact {
                    true => format!(" same: {theirs} |"),
                    false => " same |".to_owned(),
                };
                continue;
            };
            let note = format!("{other}: {}", differs.why);
            let known = notes.iter().position(|it| *it == note);
            let number = known.unwrap_or_else(|| {
                notes.push(note);
                notes.len() - 1
            });
            let _ = write!(text, " {} [{}] |", outcome(&differs.expect), number + 1);
        }
        text += "\n";
    }
    text += "<!-- reference: end -->\n";
    if !notes.is_empty() {
        text += "\n";
    }
    for (number, note) in (1..).zip(notes) {
        text += &wrapped(&format!("{number}. {note}"), "   ");
        text += "\n";
    }
    text
}

/// Says in few words how an exchange ends.
fn outcome(expect: &Expect) -> String {
    let answers = expect.answers.iter().map(answer);
    let mut parts: Vec<String> = answers.collect();
    if parts.is_empty() {
        parts.push("no answer".to_owned());
    }
    if !expect.after.is_empty() {
        parts.push("bytes pass".to_owned());
    }
    match expect.then {
        Then::Open | Then::Any => {}
        Then::Closed | Then::Ends => parts.push("closed".to_owned()),
    }
    let required = |messages: &[Message]| messages.iter().filter(|it| !it.is_optional).count();
    let finals = expect
        .answers
        .iter()
        .filter(|it| it.statuses.iter().any(|it| *it >= 200));
    let requests = required(&expect.origin);
    let has_failed = expect
        .answers
        .iter()
        .any(|it| it.statuses.iter().any(|status| *status >= 400));
    if requests != finals.count() && !(requests == 0 && has_failed) {
        parts.push(format!("origin asked {requests}×"));
    }
    parts.join(", ")
}

fn answer(answer: &Message) -> String {
    let statuses = answer.statuses.iter().map(u16::to_string);
    let mut text = statuses.collect::<Vec<_>>().join(" or ");
    match answer.whole {
        Whole::No => text += " broken off",
        Whole::Any | Whole::Yes => {}
    }
    if answer.is_optional {
        text = format!("({text})");
    }
    text
}

fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{indent}{word}"));
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}
