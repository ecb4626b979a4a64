//! Verdicts: what was found in a request, and the counters of what was found in all.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{class::Class, place::Place};

/// The result of inspecting a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The sum of the scores of the rules that matched.
    pub score: u32,
    /// Whether the score reaches the threshold.
    pub is_attack: bool,
    /// Whether the request must be refused: an attack, in the mode `block`.
    pub is_blocked: bool,
    /// The rules that matched, each once.
    pub matches: Vec<Match>,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Match {
    /// The rule's id.
    #[serde(serialize_with = "text")]
    pub rule: Arc<str>,
    /// The rule's class.
    pub class: Class,
    /// The rule's score.
    pub score: u32,
    /// The place of the text that matched.
    pub place: Place,
    /// The field's name, if it has one.
    pub field: String,
    /// The beginning of the match, as rules saw it.
    pub excerpt: String,
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Longest excerpt, in bytes. Enough to recognise an attack, too little to keep a secret whole.
const EXCERPT_BYTES_MAX: usize = 64;

/// Longest field name in a log.
const FIELD_BYTES_MAX: usize = 64;

impl Match {
    /// Describes a match at a position of a text.
    pub(super) fn new(
        (rule, class, score): (Arc<str>, Class, u32),
        (place, field): (Place, &[u8]),
        text: &[u8],
        position: usize,
    ) -> Self {
        // Some of what stands before shows what the match is part of.
        let start = position.saturating_sub(8);
        Self {
            rule,
            class,
            score,
            place,
            field: printable(field, FIELD_BYTES_MAX),
            excerpt: printable(&text[start.min(text.len())..], EXCERPT_BYTES_MAX),
        }
    }
}

/// Returns the beginning of a text without control characters.
fn printable(text: &[u8], bytes_max: usize) -> String {
    let text = &text[..text.len().min(bytes_max)];
    String::from_utf8_lossy(text)
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

/// Checks that aren't rules of a file: limits, and requests that break HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Check {
    BodyBytes,
    Inflate,
    Parameters,
    JsonValues,
    JsonDepth,
    DecodeRounds,
    Multipart,
    Method,
    ContentLength,
    Framing,
    HeaderBytes,
}

impl Check {
    const COUNT: usize = 11;

    /// All checks, with their ids and scores.
    const ALL: [(Self, &'static str, u32); Self::COUNT] = [
        // Uploads may be long: worth a line in the log, not a refusal.
        (Self::BodyBytes, "limit-body-bytes", 2),
        (Self::Inflate, "limit-inflated-body", 5),
        (Self::Parameters, "limit-parameters", 5),
        (Self::JsonValues, "limit-json-values", 5),
        (Self::JsonDepth, "limit-json-depth", 5),
        (Self::DecodeRounds, "limit-decode-rounds", 5),
        (Self::Multipart, "protocol-multipart", 3),
        (Self::Method, "protocol-method", 5),
        (Self::ContentLength, "protocol-content-length", 5),
        (Self::Framing, "protocol-framing", 5),
        (Self::HeaderBytes, "protocol-header-bytes", 5),
    ];

    /// Returns the id and the score.
    pub(super) const fn describe(self) -> (&'static str, u32) {
        let (_, id, score) = Self::ALL[self as usize];
        (id, score)
    }
}

/// Returns whether a check has this id.
pub(super) fn is_check(id: &str) -> bool {
    Check::ALL.iter().any(|(_, known, _)| *known == id)
}

/// How many requests were inspected and what was found, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Requests that were inspected.
    pub requests: u64,
    /// Requests whose score reached the threshold.
    pub attacks: u64,
    /// Matches by class, for the classes with any.
    pub classes: Vec<(Class, u64)>,
    /// Matches of limits and of checks of HTTP by id, for those with any.
    pub checks: Vec<(&'static str, u64)>,
}

/// The counters behind `Counts`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    attacks: AtomicU64,
    classes: [AtomicU64; Class::ALL.len()],
    checks: [AtomicU64; Check::COUNT],
}

impl Counters {
    /// Counts a request.
    pub(super) fn count(&self, verdict: &Verdict) {
        self.requests.fetch_add(1, Relaxed);
        if verdict.is_attack {
            self.attacks.fetch_add(1, Relaxed);
        }
        for found in &verdict.matches {
            self.classes[found.class as usize].fetch_add(1, Relaxed);
        }
    }

    /// Counts a limit that was exceeded or a breach of HTTP.
    pub(super) fn check(&self, check: Check) {
        self.checks[check as usize].fetch_add(1, Relaxed);
    }

    /// Returns the counts so far.
    pub(super) fn counts(&self) -> Counts {
        let loaded = |counter: &AtomicU64| Some(counter.load(Relaxed)).filter(|count| *count > 0);
        Counts {
            requests: self.requests.load(Relaxed),
            attacks: self.attacks.load(Relaxed),
            classes: Class::ALL
                .iter()
                .zip(&self.classes)
                .filter_map(|(class, counter)| Some((*class, loaded(counter)?)))
                .collect(),
            checks: Check::ALL
                .iter()
                .zip(&self.checks)
                .filter_map(|((_, id, _), counter)| Some((*id, loaded(counter)?)))
                .collect(),
        }
    }
}
