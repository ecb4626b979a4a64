//! A WAF (web application firewall): finds attacks in requests.
//!
//! A request is walked into texts: path, parameters, cookies, headers, and what its body holds.
//! Each text is decoded and brought into lower case. One pass finds the literals in it;
//! only the rules whose literals were seen run their regexes. Regexes here take linear time. Two
//! tokenisers judge SQL and HTML. Each rule that matches adds to the request's score.

mod body;
mod bytes;
mod class;
mod decode;
mod engine;
pub mod file;
mod injection;
mod inspect;
mod json;
mod matcher;
mod multipart;
mod needed;
mod normalise;
mod pairs;
mod place;
mod request;
mod rules;
mod settings;
mod sqlish;
mod verdict;

pub use self::{
    class::Class,
    inspect::Scratch,
    place::Place,
    request::Request,
    rules::{Rules, RulesError},
    settings::{Exclusion, Limits, Mode, Settings},
    verdict::{Counts, Match, Verdict},
};

use self::{engine::Engine, inspect::Inspection, matcher::Matcher};

/// A WAF with its rules and counters. Threads share it.
#[derive(Debug)]
pub struct Waf {
    engine: Engine,
}

/// Settings or rules that a WAF can't use.
#[derive(Debug, thiserror::Error)]
pub enum WafError {
    /// A rule is broken.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The paranoia level doesn't exist.
    #[error("paranoia '{0}' is not one of 1 to 4")]
    Paranoia(u8),
    /// The threshold would make every request an attack.
    #[error("threshold '0' would block every request; expected 1 or more, usually 5")]
    Threshold,
    /// An exclusion excludes everything.
    #[error("exclusion {0} names nothing; expected 'rule', 'class', 'field' or 'place'")]
    Exclusion(usize),
    /// An exclusion names a rule that doesn't exist.
    #[error("exclusion {0} names the rule '{1}', which doesn't exist")]
    UnknownRule(usize, String),
    /// The literals of the rules don't fit into one automaton.
    #[error("the rules have too many literals: {0}; try fewer or shorter ones")]
    Literals(#[from] aho_corasick::BuildError),
}

impl Waf {
    /// Prepares a WAF.
    ///
    /// # Errors
    /// A level that doesn't exist, an exclusion that names nothing or a rule that doesn't exist, or
    /// more rules than fit.
    pub fn new(settings: Settings, rules: Rules) -> Result<Self, WafError> {
        if !(1..=4).contains(&settings.paranoia) {
            return Err(WafError::Paranoia(settings.paranoia));
        }
        if settings.threshold == 0 {
            return Err(WafError::Threshold);
        }
        for (index, exclusion) in settings.exclusions.iter().enumerate() {
            if exclusion.is_empty() {
                return Err(WafError::Exclusion(index + 1));
            }
            if let Some(rule) = &exclusion.rule
                && !rules.contains(rule)
                && !inspect::TOKENISERS.contains(&rule.as_str())
                && !verdict::is_check(rule)
            {
                return Err(WafError::UnknownRule(index + 1, rule.clone()));
            }
        }
        let matcher = Matcher::new(rules.at(settings.paranoia))?;
        Ok(Self {
            engine: Engine::new(settings, matcher),
        })
    }

    /// Inspects a request. Takes time linear in its length; allocates only for what it finds.
    pub fn inspect<'a, H>(&self, request: Request<'a, H>, scratch: &mut Scratch) -> Verdict
    where
        H: IntoIterator<Item = (&'a [u8], &'a [u8])>,
    {
        let mut inspection = Inspection::new(&self.engine, &mut scratch.texts);
        inspection.request(request);
        let verdict = inspection.finish();
        self.engine.counters.count(&verdict);
        verdict
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.engine.settings
    }

    /// Returns what was counted so far.
    pub fn counts(&self) -> Counts {
        self.engine.counters.counts()
    }
}
