//! Rules: what a file may say, and what is made of it.

use std::{collections::BTreeMap, panic::resume_unwind, sync::Arc, thread};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};
use serde::Deserialize;
use service::{
    Mistake,
    mistake::{ensure, within},
};

use super::{
    class::Class,
    needed::{self, Bytes},
    normalise::Variant,
    place::Places,
};
use crate::literals;

/// Rules, from the built-in set and from files.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    sets: BTreeMap<String, String>,
}

/// Rules that can't be used: the file, the place in it, the rule, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(String);

/// A rule that can be matched.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: Arc<str>,
    pub(super) class: Class,
    pub(super) paranoia: u8,
    pub(super) score: u32,
    pub(super) places: Places,
    /// A bit for each [`Variant`].
    pub(super) variants: u8,
    /// The fields' names, in lower case, if the rule is for fields of these names.
    pub(super) names: Vec<String>,
    pub(super) regex: Regex,
    /// A regex of texts that are harmless though they match.
    pub(super) unless: Option<Regex>,
    /// A text that contains none of these can't match. None: any may.
    pub(super) literals: Vec<Vec<u8>>,
    /// A text that lacks all bytes of one of these can't match.
    pub(super) needed: Vec<Bytes>,
}

impl Rule {
    /// Returns where the text of a field matches.
    /// `bytes` are those in the text.
    pub(super) fn position(&self, name: &[u8], text: &[u8], bytes: Bytes) -> Option<usize> {
        if self.needed.iter().any(|needed| needed & bytes == 0) {
            return None;
        }
        let is_name = |known: &String| name.eq_ignore_ascii_case(known.as_bytes());
        if !self.names.is_empty() && !self.names.iter().any(is_name) {
            return None;
        }
        let found = self.regex.find(text)?;
        let is_harmless = self.unless.as_ref().is_some_and(|it| it.is_match(text));
        (!is_harmless).then(|| found.start())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RulesFile {
    /// Lists of alternatives that regexes name, as in `{commands}`.
    #[serde(default)]
    sets: BTreeMap<String, Vec<String>>,
    #[serde(default, rename = "rule")]
    rules: Vec<RuleEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleEntry {
    id: String,
    class: Class,
    /// For readers of the file and of the log.
    #[serde(rename = "description")]
    _description: String,
    #[serde(default = "lowest_paranoia")]
    paranoia: u8,
    #[serde(default = "usual_score")]
    score: u32,
    fields: Option<Vec<String>>,
    #[serde(default)]
    not_fields: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    variants: Option<Vec<Variant>>,
    regex: Option<String>,
    #[serde(default)]
    phrases: Vec<String>,
    #[serde(default)]
    literals: Vec<String>,
    unless: Option<String>,
}

const fn lowest_paranoia() -> u8 {
    1
}

/// Blocks alone, by the usual threshold.
const fn usual_score() -> u32 {
    5
}

/// Most memory of one compiled regex, and of the cache of its states.
const REGEX_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The built-in rules, a file for each class.
const BUILTIN: [(&str, &str); 9] = [
    ("rules/sqli.toml", include_str!("../../rules/sqli.toml")),
    ("rules/xss.toml", include_str!("../../rules/xss.toml")),
    ("rules/rce.toml", include_str!("../../rules/rce.toml")),
    ("rules/lfi.toml", include_str!("../../rules/lfi.toml")),
    ("rules/php.toml", include_str!("../../rules/php.toml")),
    ("rules/script.toml", include_str!("../../rules/script.toml")),
    ("rules/ssrf.toml", include_str!("../../rules/ssrf.toml")),
    (
        "rules/directory.toml",
        include_str!("../../rules/directory.toml"),
    ),
    (
        "rules/protocol.toml",
        include_str!("../../rules/protocol.toml"),
    ),
];

impl Rules {
    /// Returns the built-in rules.
    ///
    /// # Errors
    /// None, unless a built-in rule is broken, which a test excludes.
    pub fn builtin() -> Result<Self, RulesError> {
        let mut rules = Self::default();
        for (file, text) in BUILTIN {
            rules.add(file, text)?;
        }
        Ok(rules)
    }

    /// Adds the rules of a file. `file` is its name, for errors.
    ///
    /// # Errors
    /// The file's line and rule, if it isn't valid TOML, has unknown keys, uses an id twice, or has
    /// a regex that doesn't compile or is too large.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), RulesError> {
        let added = toml::from_str(text)
            .map_err(|error| Mistake::parsed(&error, text))
            .and_then(|wire| self.take(wire).map_err(|mistake| mistake.found_in(text)));
        added.map_err(|mistake| RulesError(mistake.in_file(file)))
    }

    fn take(&mut self, wire: RulesFile) -> Result<(), Mistake> {
        for (name, members) in wire.sets {
            let joined = format!("(?:{})", members.join("|"));
            let known = self.sets.insert(name.clone(), joined);
            ensure(known.is_none(), "sets", || {
                format!("the set '{name}' is defined twice")
            })?;
        }
        let names: Vec<String> = wire.rules.iter().map(|entry| entry.id.clone()).collect();
        for (index, rule) in self.check_all(wire.rules).into_iter().enumerate() {
            let what = format!("rule '{}'", names[index]);
            let is_free = ensure(!self.contains(&names[index]), "id", || {
                "this id is taken; ids must differ, those of built-in rules too".to_owned()
            });
            let rule = is_free
                .and(rule)
                .map_err(|mistake| mistake.in_entry("rule", index, &what))?;
            self.rules.push(rule);
        }
        Ok(())
    }

    /// Checks entries on all cores: compiling their regexes is most of the time of a start.
    fn check_all(&self, mut entries: Vec<RuleEntry>) -> Vec<Result<Rule, Mistake>> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let of_each = entries.len().div_ceil(cores).max(1);
        thread::scope(|scope| {
            let mut parts = Vec::new();
            while !entries.is_empty() {
                let rest = entries.split_off(of_each.min(entries.len()));
                let part = std::mem::replace(&mut entries, rest);
                let check = || part.into_iter().map(|entry| self.check(entry));
                parts.push(scope.spawn(move || check().collect::<Vec<_>>()));
            }
            let checked = parts.into_iter().map(|part| match part.join() {
                Ok(checked) => checked,
                Err(panic) => resume_unwind(panic),
            });
            checked.flatten().collect()
        })
    }

    /// Returns how many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Returns whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns whether a rule has this id.
    pub fn contains(&self, id: &str) -> bool {
        self.rules.iter().any(|rule| &*rule.id == id)
    }

    /// Returns the rules that count at a paranoia level.
    pub(super) fn at(self, paranoia: u8) -> Vec<Rule> {
        let mut rules = self.rules;
        rules.retain(|rule| rule.paranoia <= paranoia);
        rules
    }

    fn check(&self, entry: RuleEntry) -> Result<Rule, Mistake> {
        within("paranoia", usize::from(entry.paranoia), 1, 4)?;
        let of = |key| move |problem: String| Mistake::at(key, problem);
        let pattern = match (&entry.regex, entry.phrases.as_slice()) {
            (Some(regex), []) => self.expand(regex).map_err(of("regex"))?,
            (None, [_, ..]) => phrases(&entry.phrases),
            _ => return Err(of("regex")("expected either 'regex' or 'phrases'".into())),
        };
        let (regex, hir) = compile(&pattern).map_err(of("regex"))?;
        let unless = entry.unless.as_ref().map(|pattern| {
            let compiled = self.expand(pattern).and_then(|it| compile(&it));
            compiled.map(|(regex, _)| regex).map_err(of("unless"))
        });
        let empty = entry.literals.iter().position(String::is_empty);
        if let Some(index) = empty {
            return Err(of("literals")("a literal is empty".into()).in_item(index));
        }
        let literals = match entry.literals.is_empty() {
            true => literals::required(&hir).unwrap_or_default(),
            false => entry
                .literals
                .iter()
                .map(|text| text.clone().into_bytes())
                .collect(),
        };
        let fields = entry.fields.unwrap_or_else(|| vec!["any".to_owned()]);
        let all = places("fields", &fields)?;
        let variants = match &entry.variants {
            Some(variants) => variants
                .iter()
                .fold(0, |bits, variant| bits | *variant as u8),
            None => entry.class.variants(),
        };
        Ok(Rule {
            id: entry.id.into(),
            class: entry.class,
            paranoia: entry.paranoia,
            score: entry.score,
            places: all.without(places("not-fields", &entry.not_fields)?),
            variants,
            names: entry
                .names
                .iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            regex,
            unless: unless.transpose()?,
            literals,
            needed: needed::by_regex(&hir),
        })
    }

    /// Replaces the names of sets by their members.
    fn expand(&self, regex: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(regex.len());
        let mut rest = regex;
        while let Some(start) = rest.find('{') {
            let (head, tail) = rest.split_at(start);
            expanded.push_str(head);
            let name = tail[1..]
                .find('}')
                .map(|end| &tail[1..=end])
                .filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))
                .filter(|_| !head.ends_with(['\\', 'x', 'p', 'P']));
            match name {
                Some(name) => {
                    let set = self.sets.get(name);
                    let set = set.ok_or_else(|| format!("there is no set '{name}'"))?;
                    expanded.push_str(set);
                    rest = &tail[name.len() + 2..];
                }
                None => {
                    expanded.push('{');
                    rest = &tail[1..];
                }
            }
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

/// Returns a regex for phrases. They match as words where they begin or end with a letter.
fn phrases(phrases: &[String]) -> String {
    let word = |byte: Option<u8>| match byte {
        Some(byte) if byte.is_ascii_alphanumeric() => r"\b",
        _ => "",
    };
    let all: Vec<String> = phrases
        .iter()
        .map(|phrase| {
            let (first, last) = (phrase.bytes().next(), phrase.bytes().last());
            format!("{}{}{}", word(first), regex::escape(phrase), word(last))
        })
        .collect();
    all.join("|")
}

fn compile(pattern: &str) -> Result<(Regex, Hir), String> {
    let hir = literals::parse(pattern)
        .map_err(|error| format!("the regex is not valid: {}", one_line(&error.to_string())))?;
    if let Some(letter) = upper_case(&hir) {
        return Err(format!(
            "'{letter}' can't match, since rules see texts in lower case; write it in lower case"
        ));
    }
    let regex = RegexBuilder::new(pattern)
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_BYTES_MAX)
        .nest_limit(literals::NESTING_MAX)
        .build()
        .map_err(|error| format!("the regex can't be used: {}", one_line(&error.to_string())))?;
    Ok((regex, hir))
}

/// Errors of regexes draw the pattern over several lines. Only their last says what is wrong.
fn one_line(error: &str) -> &str {
    let last = error.lines().rfind(|line| !line.trim().is_empty());
    last.unwrap_or(error).trim().trim_start_matches("error: ")
}

/// Returns a letter of a literal that is in upper case.
fn upper_case(part: &Hir) -> Option<char> {
    match part.kind() {
        HirKind::Literal(literal) => {
            let found = literal.0.iter().find(|byte| byte.is_ascii_uppercase());
            found.map(|byte| char::from(*byte))
        }
        HirKind::Repetition(repetition) => upper_case(&repetition.sub),
        HirKind::Capture(capture) => upper_case(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().find_map(upper_case),
        _ => None,
    }
}

fn places(key: &'static str, names: &[String]) -> Result<Places, Mistake> {
    let mut places = Places::NONE;
    for (index, name) in names.iter().enumerate() {
        let named = Places::named(name).ok_or_else(|| {
            let text = format!(
                "there is no field '{name}'; expected any, args, body, names, headers, cookies or \
                 a single place such as query or user-agent"
            );
            Mistake::at(key, text).in_item(index)
        })?;
        places = places.and(named);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let mut rules = Rules::builtin().expect("built-in rules");
        rules
            .add("own.toml", text)
            .expect_err("an error")
            .to_string()
    }

    fn rule(rest: &str) -> String {
        format!("\n[[rule]]\nid = \"own\"\nclass = \"sqli\"\ndescription = \"x\"\n{rest}\n")
    }

    #[test]
    fn errors_name_file_line_and_rule() {
        for (text, expected) in [
            (
                rule("regex = '('"),
                "own.toml:6:9: rule 'own': the regex is not valid: ",
            ),
            (
                rule("regex = 'Select'"),
                "own.toml:6:9: rule 'own': 'S' can't match",
            ),
            (
                rule("regex = 'a{900}{900}'"),
                "own.toml:6:9: rule 'own': the regex can't be used: ",
            ),
            (
                rule("regex = 'a'\nparanoia = 5"),
                "own.toml:7:12: rule 'own': 'paranoia': expected 1 to 4, found 5",
            ),
            (
                rule("regex = 'a'\nfields = ['body', 'x']"),
                "own.toml:7:19: rule 'own': there is no field 'x'",
            ),
            (
                rule("regex = '{nothing} x'"),
                "own.toml:6:9: rule 'own': there is no set 'nothing'",
            ),
            (
                rule("regex = 'a'\nphrases = ['b']"),
                "own.toml:6:9: rule 'own': expected either",
            ),
            (
                rule(""),
                "own.toml:2:1: rule 'own': expected either 'regex' or 'phrases'",
            ),
            (
                rule("regex = 'a'\ncolour = 1"),
                "own.toml:7:1: 'rule': unknown field `colour`",
            ),
            (
                rule("regex = 'a'") + &rule("regex = 'b'"),
                "own.toml:9:6: rule 'own': this id is taken",
            ),
            ("[[rule]".to_owned(), "own.toml:1:"),
        ] {
            let error = error(&text);
            assert!(error.starts_with(expected), "{error}\nexpected {expected}");
        }
    }

    #[test]
    fn sets_stand_for_their_members() {
        let mut rules = Rules::default();
        let text =
            "[sets]\nfruits = ['apple', 'pears?']\n".to_owned() + &rule("regex = '\\b{fruits}\\b'");
        rules.add("own.toml", &text).expect("rules");
        let rules = rules.at(1);
        assert!(rules[0].regex.is_match(b"two pears"));
        assert!(!rules[0].regex.is_match(b"spears"));
        assert_eq!(rules[0].literals.len(), 3);
    }

    #[test]
    fn a_rule_waits_for_its_paranoia() {
        let at = |paranoia| Rules::builtin().expect("built-in rules").at(paranoia).len();
        assert!(at(1) < at(2) && at(2) < at(3) && at(3) < at(4));
    }
}
