//! Checked cases, made from the tables.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    bytes::bytes,
    message::{Field, field},
    wire::{self, Action, ExactStatus, OtherStep, Script, Statuses, Then, Whole},
};

/// A topic: the cases of one file.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) cases: Vec<Case>,
}

/// A scripted exchange and its outcome.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) client: Vec<Step>,
    pub(crate) origin: Vec<Vec<Step>>,
    pub(crate) origin_refuses: bool,
    /// The outcomes that are right.
    pub(crate) expect: Expect,
    /// The one of them that a subject shows.
    pub(crate) exact: BTreeMap<String, Expect>,
    pub(crate) differs: BTreeMap<String, Differs>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    WaitFor(Vec<u8>),
    WaitOther(Vec<u8>),
    Do(Action),
}

#[derive(Clone, Debug)]
pub(crate) struct Expect {
    pub(crate) answers: Vec<Message>,
    pub(crate) then: Then,
    pub(crate) after: Vec<u8>,
    pub(crate) origin: Vec<Message>,
    pub(crate) connections: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Differs {
    pub(crate) why: String,
    pub(crate) expect: Expect,
}

/// The parts of an answer or a request that matter.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Empty for a request.
    pub(crate) statuses: Vec<u16>,
    pub(crate) is_optional: bool,
    pub(crate) whole: Whole,
    pub(crate) line: Option<Vec<u8>>,
    pub(crate) has: Vec<Field>,
    pub(crate) begins: Vec<Field>,
    pub(crate) lacks: Vec<String>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) trailers: Option<Vec<Field>>,
}

/// Names of the subjects that the tables may compare with.
pub(crate) const OTHERS: [&str; 2] = ["haproxy", "nginx"];

/// Name of the forwarder in the tables.
pub(crate) const OURS: &str = "ours";

impl Case {
    /// Returns the outcome that is expected of a subject.
    pub(crate) fn expected(&self, subject: &str) -> &Expect {
        let differs = self.differs.get(subject).map(|differs| &differs.expect);
        let exact = || self.exact.get(subject);
        differs.or_else(exact).unwrap_or(&self.expect)
    }
}

/// Reads all tables, in the order of their file names.
pub(crate) fn topics(directory: &Path) -> Result<Vec<Topic>, String> {
    let files = fs::read_dir(directory).map_err(|error| error.to_string())?;
    let files = files.map(|file| file.map(|file| file.path()));
    let mut files: Vec<_> = files
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    files.sort();
    let read = |file: &Path| {
        let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
        topic(&text)
    };
    let topics = files.iter().map(|file| {
        let topic = read(file);
        topic.map_err(|error| format!("'{}': {error}", file.display()))
    });
    topics.collect()
}

/// Reads one table.
pub(crate) fn topic(text: &str) -> Result<Topic, String> {
    let table: wire::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut cases = Vec::new();
    for wire in table.case {
        let name = wire.name.clone();
        cases.extend(variants(wire).map_err(|error| format!("case '{name}': {error}"))?);
    }
    Ok(Topic {
        title: table.title,
        about: table.about,
        cases,
    })
}

fn variants(wire: wire::Case) -> Result<Vec<Case>, String> {
    if wire.each.is_empty() {
        return Ok(vec![case(&wire, wire.name.clone(), "", "")?]);
    }
    let names: Vec<&str> = wire.each.iter().map(|(name, _)| name.as_str()).collect();
    let of_differs = wire.differs.values().flatten().map(|it| &it.only);
    let of_exact = wire.exact.values().flatten().map(|it| &it.only);
    let mut only = of_differs.chain(of_exact).flatten();
    if let Some(unknown) = only.find(|name| !names.contains(&name.as_str())) {
        return Err(format!("'only': '{unknown}': expected one of {names:?}"));
    }
    let cases = wire.each.iter().map(|(name, value)| {
        let full = format!("{}: {name}", wire.name);
        case(&wire, full, name, value)
    });
    cases.collect()
}

fn case(wire: &wire::Case, name: String, variant: &str, value: &str) -> Result<Case, String> {
    let steps = |steps: &[wire::Step]| {
        let steps = steps.iter().map(|step| self::step(step, value));
        steps.collect::<Result<Vec<_>, _>>()
    };
    let mut client = steps(&wire.client)?;
    match &wire.request {
        Some(request) if client.is_empty() => client.push(send(request, value)?),
        None if !client.is_empty() => {}
        _ => return Err("expected either 'request' or 'client'".to_owned()),
    }
    let origin = wire.origin.iter().map(|script| match script {
        Script::Answer(text) => Ok(vec![send(text, value)?]),
        Script::Steps(list) => steps(list),
    });
    let mut differs = BTreeMap::new();
    for (subject, list) in &wire.differs {
        if !OTHERS.contains(&subject.as_str()) {
            return Err(format!("'differs.{subject}': expected one of {OTHERS:?}"));
        }
        let holds =
            |it: &wire::Differs| it.only.is_empty() || it.only.iter().any(|name| name == variant);
        for wire in list.iter().filter(|it| holds(it)) {
            let checked = Differs {
                why: wire.why.clone(),
                expect: expect(&wire.expect, value)?,
            };
            if differs.insert(subject.clone(), checked).is_some() {
                return Err(format!("'differs.{subject}': two outcomes for '{variant}'"));
            }
        }
    }
    let expect = expect(&wire.expect, value)?;
    let mut exact = BTreeMap::new();
    for (subject, list) in &wire.exact {
        if subject != OURS && !OTHERS.contains(&subject.as_str()) {
            return Err(format!(
                "'exact.{subject}': expected '{OURS}' or one of {OTHERS:?}"
            ));
        }
        let holds = |only: &[String]| only.is_empty() || only.iter().any(|name| name == variant);
        if let Some(wire) = list.iter().find(|it| holds(&it.only)) {
            let narrowed = narrowed(&expect, wire);
            let narrowed = narrowed.map_err(|error| format!("'exact.{subject}': {error}"))?;
            exact.insert(subject.clone(), narrowed);
        }
    }
    Ok(Case {
        name,
        source: wire.source.clone(),
        client,
        origin: origin.collect::<Result<_, _>>()?,
        origin_refuses: wire.origin_refuses,
        expect,
        exact,
        differs,
    })
}

/// Narrows what may come down to what does: the one answer with several statuses, or none.
fn narrowed(expect: &Expect, exact: &wire::Exact) -> Result<Expect, String> {
    let mut narrowed = expect.clone();
    if let Some(then) = exact.then {
        if expect.then != Then::Any {
            return Err("'then' is known without it".to_owned());
        }
        narrowed.then = then;
    }
    let Some(status) = exact.status else {
        return Ok(narrowed);
    };
    let is_open = |it: &Message| it.statuses.len() > 1 || it.is_optional;
    let mut open = (0..).zip(&expect.answers).filter(|(_, it)| is_open(it));
    let (Some((at, answer)), None) = (open.next(), open.next()) else {
        return Err("expected one answer with several statuses, or that may be missing".to_owned());
    };
    match status {
        ExactStatus::Status(status) if answer.statuses.contains(&status) => {
            narrowed.answers[at].statuses = vec![status];
            narrowed.answers[at].is_optional = false;
            if (200..400).contains(&status) {
                // Somebody must have said so.
                let origin = narrowed.origin.iter_mut();
                origin.for_each(|request| request.is_optional = false);
            }
        }
        ExactStatus::Other(_) if answer.is_optional => drop(narrowed.answers.remove(at)),
        _ => return Err(format!("{status:?} is none of {:?}", answer.statuses)),
    }
    Ok(narrowed)
}

fn filled(text: &str, value: &str) -> Result<Vec<u8>, String> {
    bytes(&text.replace("{value}", value))
}

fn send(text: &str, value: &str) -> Result<Step, String> {
    filled(text, value).map(Step::Send)
}

fn step(step: &wire::Step, value: &str) -> Result<Step, String> {
    match step {
        wire::Step::Send(text) => send(text, value),
        wire::Step::Other(OtherStep::WaitFor(text)) => filled(text, value).map(Step::WaitFor),
        wire::Step::Other(OtherStep::WaitOther(text)) => filled(text, value).map(Step::WaitOther),
        wire::Step::Other(OtherStep::Do(action)) => Ok(Step::Do(*action)),
    }
}

fn expect(wire: &wire::Expect, value: &str) -> Result<Expect, String> {
    let mut then = wire.then;
    let (mut answers, mut origin) = (wire.answers.clone(), wire.origin.clone());
    if let Some(statuses) = &wire.refused {
        if answers.is_some() || then != Then::Open {
            return Err("'refused' leaves no room for 'answers' and 'then'".to_owned());
        }
        let status = Some(statuses.clone());
        answers = Some(vec![wire::Message {
            status,
            ..wire::Message::default()
        }]);
        origin = origin.or_else(|| Some(Vec::new()));
        then = Then::Closed;
    }
    let answers = answers.unwrap_or_else(|| vec![wire::Message::default()]);
    let origin = origin.unwrap_or_else(|| vec![wire::Message::default()]);
    let answers = answers.iter().map(|it| message(it, value, true));
    let origin = origin.iter().map(|it| message(it, value, false));
    Ok(Expect {
        answers: answers.collect::<Result<_, _>>()?,
        then,
        after: filled(wire.after.as_deref().unwrap_or_default(), value)?,
        origin: origin.collect::<Result<_, _>>()?,
        connections: wire.connections,
    })
}

fn message(wire: &wire::Message, value: &str, is_answer: bool) -> Result<Message, String> {
    let optional = |text: &Option<String>| {
        let text = text.as_deref();
        text.map(|text| filled(text, value)).transpose()
    };
    let fields = |lines: &[String]| {
        let lines = lines.iter().map(|line| field(&filled(line, value)?));
        lines.collect::<Result<Vec<_>, _>>()
    };
    let statuses = match &wire.status {
        Some(_) if !is_answer => return Err("a request has no 'status'".to_owned()),
        Some(Statuses::One(status)) => vec![*status],
        Some(Statuses::Several(statuses)) => statuses.clone(),
        Some(Statuses::Template(text)) => {
            let status = text.replace("{value}", value).parse();
            vec![status.map_err(|_| format!("'status': '{text}': expected a number"))?]
        }
        None if is_answer => vec![200],
        None => Vec::new(),
    };
    Ok(Message {
        statuses,
        is_optional: wire.optional,
        whole: wire.whole,
        line: optional(&wire.line)?,
        has: fields(&wire.has)?,
        begins: fields(&wire.begins)?,
        lacks: wire.lacks.clone(),
        body: optional(&wire.body)?,
        trailers: wire.trailers.as_deref().map(fields).transpose()?,
    })
}

#[test]
fn mistakes_in_a_table_are_named() {
    let head = "title = 't'\nabout = 'a'\n[[case]]\nname = 'n'\nsource = 's'\n";
    let valid = format!("{head}request = 'GET'\n");
    assert_eq!(topic(&valid).expect("valid").cases.len(), 1);
    for (more, said) in [
        ("client = ['x']", "either 'request' or 'client'"),
        ("exepct = {}", "exepct"),
        ("expect = { origin = [{ status = 1 }] }", "no 'status'"),
        ("expect = { refused = 400, answers = [] }", "'refused'"),
        ("differs.squid = [{ why = '', expect = {} }]", "squid"),
        (
            "each = [['a', '1']]\ndiffers.nginx = [{ why = '', only = ['b'], expect = {} }]",
            "'b'",
        ),
        ("origin = ['\\q']", "'\\q'"),
        ("exact.squid = []", "squid"),
        ("exact.ours = [{ status = 200 }]", "several statuses"),
        ("exact.ours = [{ then = 'open' }]", "is known without it"),
        (
            "expect = { refused = [400, 413] }\nexact.ours = [{ status = 431 }]",
            "none of [400, 413]",
        ),
    ] {
        let error = topic(&format!("{valid}{more}\n")).expect_err(more);
        assert!(
            error.contains(said) && error.contains("n"),
            "{more}: {error}"
        );
    }
}
