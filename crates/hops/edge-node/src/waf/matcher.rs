//! Finds the rules that match a text: first their literals, then the regexes of those seen.

use std::collections::BTreeMap;

use aho_corasick::{
    Anchored, MatchKind,
    automaton::Automaton as _,
    dfa::{self, DFA},
};

use super::{needed, normalise::Variant, place::Place, rules::Rule};

/// Matches texts with rules.
#[derive(Debug)]
pub(super) struct Matcher {
    rules: Vec<Rule>,
    automaton: DFA,
    /// How many words a set of rules has.
    words: usize,
    /// For each literal, the set of rules that need it.
    needed_by: Vec<u64>,
    /// The rules that need no literal.
    always: Vec<u64>,
    /// For each place and variant, the rules that apply.
    apply: Vec<u64>,
}

/// A set of rules, a bit each.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleSet(Vec<u64>);

/// The fate of a rule that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It may match another text.
    Excluded,
    /// It isn't tried again.
    Counted,
    /// Nor is any other.
    Enough,
}

const PLACES: usize = 20;
const VARIANTS: usize = 4;

impl Matcher {
    /// Prepares rules.
    pub(super) fn new(rules: Vec<Rule>) -> Result<Self, aho_corasick::BuildError> {
        let words = rules.len().div_ceil(64).max(1);
        let mut by_literal: BTreeMap<&[u8], Vec<u64>> = BTreeMap::new();
        let mut always = vec![0; words];
        for (index, rule) in rules.iter().enumerate() {
            if rule.literals.is_empty() {
                insert(&mut always, index);
            }
            for literal in &rule.literals {
                let set = by_literal.entry(literal).or_insert_with(|| vec![0; words]);
                insert(set, index);
            }
        }
        let automaton = dfa::Builder::new()
            .match_kind(MatchKind::Standard)
            .start_kind(aho_corasick::StartKind::Unanchored)
            .build(by_literal.keys())?;
        let needed_by = by_literal.values().flatten().copied().collect();
        let mut apply = vec![0; PLACES * VARIANTS * words];
        for (index, rule) in rules.iter().enumerate() {
            for (at, set) in apply.chunks_mut(words).enumerate() {
                let (place, variant) = (PLACE_ORDER[at / VARIANTS], VARIANT_ORDER[at % VARIANTS]);
                if rule.places.contains(place) && rule.variants & variant as u8 != 0 {
                    insert(set, index);
                }
            }
        }
        Ok(Self {
            rules,
            automaton,
            words,
            needed_by,
            always,
            apply,
        })
    }

    /// Calls `found` with each rule that matches a text and isn't in `done`, and the position of
    /// the match. `found` says what becomes of the rule.
    pub(super) fn each(
        &self,
        (place, variant): (Place, Variant),
        (name, text): (&[u8], &[u8]),
        (seen, done): (&mut RuleSet, &mut RuleSet),
        mut found: impl FnMut(&Rule, usize) -> Found,
    ) {
        self.literals(text, seen);
        done.0.resize(self.words, 0);
        let variant = (variant as u8).trailing_zeros() as usize;
        // Computed only if a literal was seen.
        let mut bytes = None;
        let apply = (place as usize * VARIANTS + variant) * self.words;
        for word in 0..self.words {
            let mut left = seen.0[word] & self.apply[apply + word] & !done.0[word];
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let rule = &self.rules[word * 64 + bit as usize];
                let present = *bytes.get_or_insert_with(|| needed::in_text(text));
                let Some(position) = rule.position(name, text, present) else {
                    continue;
                };
                match found(rule, position) {
                    Found::Excluded => {}
                    Found::Counted => done.0[word] |= 1 << bit,
                    Found::Enough => return,
                }
            }
        }
    }

    /// Finds the rules of whose literals a text contains one.
    fn literals(&self, text: &[u8], seen: &mut RuleSet) {
        seen.0.clear();
        seen.0.extend_from_slice(&self.always);
        let Ok(mut state) = self.automaton.start_state(Anchored::No) else {
            return;
        };
        for byte in text {
            state = self.automaton.next_state(Anchored::No, state, *byte);
            if self.automaton.is_special(state) && self.automaton.is_match(state) {
                for index in 0..self.automaton.match_len(state) {
                    let literal = self.automaton.match_pattern(state, index).as_usize();
                    let needed_by = &self.needed_by[literal * self.words..][..self.words];
                    for (seen, needed_by) in seen.0.iter_mut().zip(needed_by) {
                        *seen |= needed_by;
                    }
                }
            }
        }
    }
}

impl RuleSet {
    /// Removes all rules.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn insert(set: &mut [u64], index: usize) {
    set[index / 64] |= 1 << (index % 64);
}

const PLACE_ORDER: [Place; PLACES] = super::place::ALL;

const VARIANT_ORDER: [Variant; VARIANTS] = [
    Variant::Decoded,
    Variant::Sql,
    Variant::Shell,
    Variant::Path,
];
