//! The tables as they are written. `docs/HTTP-CONFORMANCE.md` explains the fields.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A file of `tests/cases`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) case: Vec<Case>,
}

/// A case, or several that differ in one value.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The section that says what is right.
    pub(crate) source: String,
    /// Names and values. A case is made for each, with the value in place of `{value}`.
    #[serde(default)]
    pub(crate) each: Vec<(String, String)>,
    /// Short for a client that only sends this.
    pub(crate) request: Option<String>,
    #[serde(default)]
    pub(crate) client: Vec<Step>,
    /// A script for each request, in the order in which they arrive at the origin.
    #[serde(default)]
    pub(crate) origin: Vec<Script>,
    /// Nothing listens on the origin's port.
    #[serde(default)]
    pub(crate) origin_refuses: bool,
    #[serde(default)]
    pub(crate) expect: Expect,
    /// Which of several right outcomes a subject shows, by its name. The first that holds counts.
    #[serde(default)]
    pub(crate) exact: BTreeMap<String, Vec<Exact>>,
    /// Differences by the name of the subject.
    #[serde(default)]
    pub(crate) differs: BTreeMap<String, Vec<Differs>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Script {
    Answer(String),
    Steps(Vec<Step>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Step {
    Send(String),
    Other(OtherStep),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum OtherStep {
    /// Waits until this side has received this text.
    WaitFor(String),
    /// Waits until the other side has received this text.
    WaitOther(String),
    Do(Action),
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// Runs an origin's script as soon as the head has arrived.
    Early,
    /// Reads the rest of the request that the script answers.
    ReadBody,
    /// Reads until the other side ends.
    WaitEnd,
    HalfClose,
    Close,
    Reset,
}

/// The outcome that is expected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Expect {
    /// Short for one answer with this status, a closed connection, and an origin that sees nothing.
    pub(crate) refused: Option<Statuses>,
    /// By default one with status 200.
    pub(crate) answers: Option<Vec<Message>>,
    #[serde(default)]
    pub(crate) then: Then,
    /// Bytes that follow the last answer, such as those of an upgraded connection.
    pub(crate) after: Option<String>,
    /// The requests that the origin sees. By default a single one.
    pub(crate) origin: Option<Vec<Message>>,
    /// Number of connections that the origin sees.
    pub(crate) connections: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Statuses {
    One(u16),
    Several(Vec<u16>),
    /// With `{value}`.
    Template(String),
}

/// The client's connection after the last answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Then {
    /// A further request is answered.
    #[default]
    Open,
    /// A further request is not answered, but the connection ends.
    Closed,
    /// The connection ends by itself.
    Ends,
    Any,
}

/// The parts of an answer or a request that matter.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Message {
    /// For answers alone, by default 200.
    pub(crate) status: Option<Statuses>,
    /// It need not come.
    #[serde(default)]
    pub(crate) optional: bool,
    /// Whether it ends as it should, or breaks off so that nobody takes it for a whole one.
    #[serde(default)]
    pub(crate) whole: Whole,
    pub(crate) line: Option<String>,
    /// Fields: those of the same names must be exactly these, in this order.
    #[serde(default)]
    pub(crate) has: Vec<String>,
    /// Fields whose first value must begin so.
    #[serde(default)]
    pub(crate) begins: Vec<String>,
    /// Names of fields that must be absent.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    pub(crate) body: Option<String>,
    /// Trailer fields, all of them.
    pub(crate) trailers: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Whole {
    #[default]
    Yes,
    No,
    Any,
}

/// The outcome, of those that are expected, that one subject shows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Exact {
    pub(crate) status: Option<ExactStatus>,
    pub(crate) then: Option<Then>,
    /// The names of `each` for which it holds; by default all.
    #[serde(default)]
    pub(crate) only: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ExactStatus {
    Status(u16),
    Other(OtherStatus),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OtherStatus {
    /// The optional answer does not come.
    None,
}

/// Another outcome, that of one subject.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Differs {
    pub(crate) why: String,
    /// The names of `each` for which it holds; by default all.
    #[serde(default)]
    pub(crate) only: Vec<String>,
    pub(crate) expect: Expect,
}
