//! Inspects one text after the other, and adds up what is found.

use std::{mem::take, sync::Arc};

use super::{
    bytes::{self, DECODE, FOLD, HTML, NOT_BASE64, PLUS, SHELL, SLASH, SQL},
    class::Class,
    decode,
    engine::Engine,
    injection,
    matcher::{Found, RuleSet},
    normalise::{self, Variant},
    place::Place,
    settings::{Limits, Mode},
    sqlish::Evidence,
    verdict::{Check, Match, Verdict},
};

/// Buffers that are kept from request to request, so that inspecting allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) texts: Texts,
}

/// Buffers for the forms of one text, and for what encloses it.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// The body, decompressed.
    pub(super) body: Vec<u8>,
    /// A string of JSON, unescaped.
    pub(super) json: Vec<u8>,
    decoded: Vec<u8>,
    lower: Vec<u8>,
    variant: Vec<u8>,
    seen: RuleSet,
    done: RuleSet,
}

/// How a text stands in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    None,
    /// With percent signs.
    Percent,
    /// With percent signs, and plus signs for spaces.
    Form,
}

/// The inspection of one request.
#[derive(Debug)]
pub(super) struct Inspection<'w> {
    engine: &'w Engine,
    pub(super) texts: &'w mut Texts,
    verdict: Verdict,
    /// How many encodings enclose the text, such as Base64 in JSON.
    nesting: u32,
}

/// How deep encodings may enclose each other: Base64 of JSON with Base64 in it.
const NESTING_MAX: u32 = 3;

/// The tokenisers' rules. Exclusions name them as they do others.
const SQL_RULE: &str = "sqli-libinjection";
const HTML_RULE: &str = "xss-libinjection";

/// The ids of the tokenisers' rules.
pub(super) const TOKENISERS: [&str; 2] = [SQL_RULE, HTML_RULE];

/// The score of a rule that blocks alone.
const BLOCKING: u32 = 5;

/// Shortest run of Base64 inside a longer text that is worth a look.
const RUN_MIN: usize = 16;

/// Most runs of Base64 that are tried in one text.
const RUNS_MAX: usize = 8;

impl<'w> Inspection<'w> {
    /// Begins to inspect a request.
    pub(super) fn new(engine: &'w Engine, texts: &'w mut Texts) -> Self {
        texts.done.clear();
        Self {
            engine,
            texts,
            verdict: Verdict::default(),
            nesting: 0,
        }
    }

    /// Returns the verdict.
    pub(super) fn finish(mut self) -> Verdict {
        let settings = &self.engine.settings;
        self.verdict.is_attack = self.verdict.score >= settings.threshold;
        self.verdict.is_blocked = self.verdict.is_attack && settings.mode == Mode::Block;
        self.verdict
    }

    /// Returns whether the verdict is certain and nobody wants to know more.
    pub(super) fn is_done(&self) -> bool {
        !self.engine.settings.complete && self.verdict.score >= self.engine.settings.threshold
    }

    /// Returns the limits.
    pub(super) fn limits(&self) -> &'w Limits {
        &self.engine.settings.limits
    }

    /// Notes that a limit is exceeded, or that the request breaks HTTP.
    pub(super) fn breach(&mut self, check: Check, place: Place) {
        self.engine.counters.check(check);
        let (id, score) = check.describe();
        if self.verdict.matches.iter().any(|found| &*found.rule == id) {
            return;
        }
        self.found((id, Class::Protocol, score), (place, b""), (b"", 0));
    }

    /// Inspects a text.
    pub(super) fn value(&mut self, place: Place, name: &[u8], raw: &[u8], encoding: Encoding) {
        if raw.is_empty() || self.is_done() {
            return;
        }
        let kinds = bytes::kinds(raw);
        let plus = if encoding == Encoding::Form { PLUS } else { 0 };
        if kinds & NOT_BASE64 == 0 {
            self.base64(place, name, raw);
        }
        if kinds & (DECODE | FOLD | plus) == 0 {
            return self.forms(place, name, raw, (raw, kinds));
        }
        let mut decoded = take(&mut self.texts.decoded);
        let mut lower = take(&mut self.texts.lower);
        if encoding == Encoding::None {
            decoded.clear();
            decoded.extend_from_slice(raw);
        } else {
            decode::form(raw, plus != 0, &mut decoded);
        }
        let mut kinds = bytes::kinds(&decoded);
        let mut rounds = 0;
        while kinds & DECODE != 0 && decode::round(&mut decoded) {
            rounds += 1;
            kinds = bytes::kinds(&decoded);
            if rounds == self.limits().decode_rounds {
                self.breach(Check::DecodeRounds, place);
                break;
            }
        }
        if kinds & NOT_BASE64 == 0 && decoded != raw {
            self.base64(place, name, &decoded);
        }
        match kinds & FOLD {
            0 => self.forms(place, name, &decoded, (&decoded, kinds)),
            _ => {
                normalise::lower(&decoded, &mut lower);
                self.forms(place, name, &decoded, (&lower, kinds));
            }
        }
        self.texts.decoded = decoded;
        self.texts.lower = lower;
    }

    /// Inspects the forms of a decoded text. `lower` is the text in lower case.
    fn forms(&mut self, place: Place, name: &[u8], text: &[u8], (lower, kinds): (&[u8], u8)) {
        let at = (place, name);
        if kinds & (SQL | SHELL) != 0 && self.is_json(lower) && self.nested_json(place, text) {
            return;
        }
        self.rules(at, Variant::Decoded, lower);
        if kinds & (SQL | SHELL | HTML | SLASH | PLUS) == 0 || self.is_done() {
            return;
        }
        let mut variant = take(&mut self.texts.variant);
        if kinds & (SQL | PLUS) != 0 && normalise::sql(lower, &mut variant) {
            self.rules(at, Variant::Sql, &variant);
        }
        if kinds & SHELL != 0 && normalise::shell(lower, &mut variant) {
            self.rules(at, Variant::Shell, &variant);
        }
        if kinds & SLASH != 0 && normalise::path(lower, &mut variant) {
            self.rules(at, Variant::Path, &variant);
        }
        self.texts.variant = variant;
        if kinds & NOT_BASE64 != 0 && text.len() > RUN_MIN {
            self.base64_runs(place, name, text);
        }
        self.tokens(at, lower, kinds);
    }

    /// Inspects a text with the rules for a place and a form.
    fn rules(&mut self, at: (Place, &[u8]), variant: Variant, text: &[u8]) {
        if self.is_done() {
            return;
        }
        let engine = self.engine;
        let mut seen = take(&mut self.texts.seen);
        let mut done = take(&mut self.texts.done);
        let each = (at.0, variant);
        let sets = (&mut seen, &mut done);
        engine
            .matcher
            .each(each, (at.1, text), sets, |rule, position| {
                let rule = (&rule.id, rule.class, rule.score);
                match self.found_by(rule, at, (text, position)) {
                    false => Found::Excluded,
                    true if self.is_done() => Found::Enough,
                    true => Found::Counted,
                }
            });
        self.texts.seen = seen;
        self.texts.done = done;
    }

    /// Inspects a text with the tokenisers for SQL and HTML.
    fn tokens(&mut self, (place, name): (Place, &[u8]), text: &[u8], kinds: u8) {
        if self.is_done() || matches!(place, Place::File | Place::Host | Place::KnownHeader) {
            return;
        }
        if kinds & HTML != 0 && !self.has(HTML_RULE) && injection::html(text) {
            let rule = (HTML_RULE, Class::Xss, BLOCKING);
            self.found(rule, (place, name), (text, 0));
        }
        if kinds & SQL == 0 || self.has(SQL_RULE) || self.is_done() {
            return;
        }
        // Browsers' own have parentheses and semicolons, and nothing else of SQL.
        let is_browser = |byte: &u8| !b"'\"=|*#@<>".contains(byte);
        if place == Place::UserAgent && text.iter().all(is_browser) {
            return;
        }
        let is_sql = match place {
            Place::Path => {
                let whole = text.strip_prefix(b"/").unwrap_or(text);
                let mut segments = whole.split(|byte| *byte == b'/');
                is_sql(whole) || segments.any(|part| part.len() < whole.len() && is_sql(part))
            }
            _ => is_sql(text),
        };
        if is_sql {
            let rule = (SQL_RULE, Class::Sqli, BLOCKING);
            self.found(rule, (place, name), (text, 0));
        }
    }

    /// Inspects a text only for what it hides.
    pub(super) fn hidden(&mut self, place: Place, raw: &[u8]) {
        if bytes::kinds(raw) & NOT_BASE64 == 0 && !self.is_done() {
            self.base64(place, b"", raw);
        }
    }

    /// Inspects the text that Base64 hides, if it does.
    fn base64(&mut self, place: Place, name: &[u8], raw: &[u8]) {
        if self.nesting == NESTING_MAX {
            return;
        }
        let mut hidden = Vec::new();
        if decode::base64(raw, &mut hidden) {
            self.nested(|inspection| inspection.value(place, name, &hidden, Encoding::Form));
        }
    }

    /// Inspects what runs of Base64 in a text hide.
    fn base64_runs(&mut self, place: Place, name: &[u8], text: &[u8]) {
        if self.nesting == NESTING_MAX {
            return;
        }
        let is_part = |byte: &u8| bytes::kinds(&[*byte]) & NOT_BASE64 == 0 && *byte != b'=';
        let runs = text.split(|byte| !is_part(byte));
        for run in runs.filter(|run| run.len() >= RUN_MIN).take(RUNS_MAX) {
            self.base64(place, name, run);
        }
    }

    fn is_json(&self, text: &[u8]) -> bool {
        let text = text.trim_ascii();
        let ends = (text.first(), text.last());
        self.nesting < NESTING_MAX
            && matches!(ends, (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')))
    }

    /// Inspects JSON that is the value of a field. Returns false if it isn't JSON.
    fn nested_json(&mut self, place: Place, text: &[u8]) -> bool {
        let text = text.to_vec();
        let places = (Place::JsonName, place);
        let mut is_json = false;
        self.nested(|inspection| is_json = inspection.json(&text, places).is_ok());
        is_json
    }

    /// Inspects something inside a text, whose buffers are in use.
    fn nested(&mut self, inspect: impl FnOnce(&mut Self)) {
        let json = take(&mut self.texts.json);
        self.nesting += 1;
        inspect(self);
        self.nesting -= 1;
        self.texts.json = json;
    }

    fn has(&self, id: &str) -> bool {
        self.verdict.matches.iter().any(|found| &*found.rule == id)
    }

    fn found(
        &mut self,
        (id, class, score): (&str, Class, u32),
        at: (Place, &[u8]),
        text: (&[u8], usize),
    ) {
        let id: Arc<str> = id.into();
        self.found_by((&id, class, score), at, text);
    }

    /// Adds a match. Returns false if it is excluded.
    fn found_by(
        &mut self,
        (id, class, score): (&Arc<str>, Class, u32),
        (place, field): (Place, &[u8]),
        (text, position): (&[u8], usize),
    ) -> bool {
        let exclusions = &self.engine.settings.exclusions;
        if exclusions
            .iter()
            .any(|it| it.covers(id, class, place, field))
        {
            return false;
        }
        self.verdict.score += score;
        let rule = (Arc::clone(id), class, score);
        let found = Match::new(rule, (place, field), text, position);
        self.verdict.matches.push(found);
        true
    }
}

/// Returns whether a text in lower case is SQL injection by its tokens, and by what else it has.
fn is_sql(text: &[u8]) -> bool {
    Evidence::of(text)
        .is_some_and(|it| injection::sql(text).is_some_and(|found| it.confirms(found.tokens())))
}
