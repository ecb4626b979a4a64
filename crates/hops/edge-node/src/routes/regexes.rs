//! Regexes: one automaton finds the texts in a path, and only the regexes whose text is there are
//! tried, the best rank first.

use std::{cell::RefCell, collections::HashMap, fmt};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex_automata::{
    Input,
    dfa::{Automaton, StartKind, dense},
    meta,
    nfa::thompson,
    util::{primitives::StateID, syntax},
};
use regex_syntax::hir::Hir;

use super::{
    pattern::{Problem, shown},
    slots::{NO_RANK, Slot},
};
use crate::literals;

/// Shortest text that is worth a search. `/` alone is in every path.
const TEXT_BYTES_MIN: usize = 2;

/// Regexes of one group of hosts that have no text to search for, and are tried for every path.
const OPEN_MAX: usize = 256;

/// Up to so many regexes are tried one by one: they fail sooner than the texts are found.
const FEW: usize = 6;

/// Largest automaton of one regex, and the largest that replaces it if it is simple.
const NFA_BYTES_MAX: usize = 256 * 1024;
const DFA_BYTES_MAX: usize = 32 * 1024;

/// The regexes of a group of hosts.
#[derive(Debug)]
pub(super) struct Regexes {
    /// By rank.
    entries: Vec<Entry>,
    texts: Option<AhoCorasick>,
    /// For each text, the indices of its regexes.
    by_text: Vec<Vec<usize>>,
    open: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    slot: Slot,
    regex: Regex,
}

/// A compiled regex.
pub(super) enum Regex {
    /// The rule: a table of states, and nothing to be borrowed while it is read.
    Small(Box<Small>),
    /// For those whose table would be large.
    Large(Box<meta::Regex>),
}

/// A table of states, entered behind the text with which each path begins.
pub(super) struct Small {
    table: dense::DFA<Vec<u32>>,
    prefix: Vec<u8>,
    state: StateID,
}

/// A regex that was read, and the texts of which its paths have one.
pub(super) struct Parsed {
    regex: Regex,
    texts: Option<Vec<Vec<u8>>>,
}

impl Parsed {
    /// Reads and compiles a regex.
    pub(super) fn new(text: &str) -> Result<Self, Problem> {
        let bad = |why: String| Problem::BadRegex {
            regex: shown(text),
            why: why.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let hir = literals::parse(text).map_err(|error| bad(reason(&error)))?;
        let regex = Regex::new(text, &hir).map_err(|error| {
            bad(match error.size_limit() {
                Some(limit) => format!("it takes more than {limit} bytes; repeat less in it"),
                None => error.to_string(),
            })
        })?;
        Ok(Self {
            regex,
            texts: literals::required(&hir)
                .filter(|texts| texts.iter().all(|text| text.len() >= TEXT_BYTES_MIN)),
        })
    }
}

/// Returns the reason alone, without the drawing that shows its place.
fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        other => other.to_string(),
    }
}

impl Regex {
    fn new(text: &str, hir: &Hir) -> Result<Self, Box<meta::BuildError>> {
        let syntax = syntax::Config::new()
            .unicode(false)
            .utf8(false)
            .dot_matches_new_line(true)
            .nest_limit(literals::NESTING_MAX);
        let nfa = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(NFA_BYTES_MAX));
        // A look at Unicode's word boundaries, or many states: the other engine can do these.
        let small = dense::Builder::new()
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Unanchored)
                    .accelerate(false)
                    .dfa_size_limit(Some(DFA_BYTES_MAX))
                    .determinize_size_limit(Some(4 * DFA_BYTES_MAX)),
            )
            .syntax(syntax)
            .thompson(nfa)
            .build(text);
        if let Ok(table) = small
            && let Some(small) = Small::new(table, literals::prefix(hir))
        {
            return Ok(Self::Small(Box::new(small)));
        }
        let config = meta::Config::new()
            .nfa_size_limit(Some(NFA_BYTES_MAX))
            .hybrid_cache_capacity(NFA_BYTES_MAX)
            .utf8_empty(false);
        let large = meta::Builder::new().configure(config).build_from_hir(hir);
        Ok(Self::Large(Box::new(large?)))
    }

    #[inline]
    fn is_match(&self, path: &str) -> bool {
        match self {
            Self::Small(small) => small.is_match(path.as_bytes()),
            Self::Large(large) => large.is_match(Input::new(path).earliest(true)),
        }
    }
}

impl Small {
    fn new(table: dense::DFA<Vec<u32>>, prefix: &[u8]) -> Option<Self> {
        let start = table.start_state_forward(&Input::new("")).ok()?;
        let end = prefix
            .iter()
            .fold(start, |state, byte| table.next_state(state, *byte));
        // A match is known one byte later than it ends, so none is missed here.
        let is_whole = !table.is_special_state(end);
        Some(Self {
            prefix: if is_whole {
                prefix.to_vec()
            } else {
                Vec::new()
            },
            state: if is_whole { end } else { start },
            table,
        })
    }

    /// Walks the table until it matches or can't any more. For texts this short it takes half as
    /// long as the library's search, which is made for long ones.
    #[inline]
    fn is_match(&self, path: &[u8]) -> bool {
        let Some(rest) = path.strip_prefix(self.prefix.as_slice()) else {
            return false;
        };
        let table = &self.table;
        let mut state = self.state;
        for byte in rest {
            state = table.next_state(state, *byte);
            if table.is_special_state(state) {
                if table.is_match_state(state) {
                    return true;
                }
                if table.is_dead_state(state) {
                    return false;
                }
            }
        }
        table.is_match_state(table.next_eoi_state(state))
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Small(..) => "Small",
            Self::Large(_) => "Large",
        })
    }
}

impl Regexes {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            texts: None,
            by_text: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Takes the regexes of a group, in the order of their ranks.
    ///
    /// # Errors
    /// Returns the rank of the one that is too much, and why.
    pub(super) fn build(parsed: Vec<(Slot, Parsed, &str)>) -> Result<Self, (u32, Problem)> {
        let mut built = Self::new();
        let mut texts: Vec<Vec<u8>> = Vec::new();
        let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
        for (slot, parsed, text) in parsed {
            let index = built.entries.len();
            for required in parsed.texts.iter().flatten() {
                let id = *known.entry(required.clone()).or_insert_with(|| {
                    texts.push(required.clone());
                    built.by_text.push(Vec::new());
                    texts.len() - 1
                });
                if built.by_text[id].last() != Some(&index) {
                    built.by_text[id].push(index);
                }
            }
            if parsed.texts.is_none() {
                let regex = shown(text);
                let most = OPEN_MAX;
                if built.open.len() == most {
                    return Err((slot.rank, Problem::TooManyOpenRegexes { regex, most }));
                }
                built.open.push(index);
            }
            built.entries.push(Entry {
                slot,
                regex: parsed.regex,
            });
        }
        if built.entries.len() > FEW && !texts.is_empty() {
            built.texts = search(&texts);
        }
        Ok(built)
    }

    /// Returns the best rank.
    #[inline]
    pub(super) fn best(&self) -> u32 {
        self.entries
            .first()
            .map_or(NO_RANK, |entry| entry.slot.rank)
    }

    /// Lowers `best` to the rank of the best route that matches.
    pub(super) fn find(&self, path: &str, method: u32, best: &mut u32) {
        let Some(texts) = &self.texts else {
            return self.try_each(0..self.entries.len(), path, method, best);
        };
        self.try_each(self.open.iter().copied(), path, method, best);
        SEEN.with_borrow_mut(|seen| {
            seen.begin(self.by_text.len());
            for found in texts.find_overlapping_iter(path) {
                let text = found.pattern().as_usize();
                if seen.is_new(text) {
                    self.try_each(self.by_text[text].iter().copied(), path, method, best);
                }
            }
        });
    }

    /// Tries regexes in the order of their ranks, until one matches or none is better.
    #[inline]
    fn try_each(
        &self,
        indices: impl Iterator<Item = usize>,
        path: &str,
        method: u32,
        best: &mut u32,
    ) {
        for index in indices {
            let Entry { slot, regex } = &self.entries[index];
            if slot.rank >= *best {
                return;
            }
            if slot.methods & method != 0 && regex.is_match(path) {
                *best = slot.rank;
                return;
            }
        }
    }
}

/// Builds the search for all texts at once; `None`, and every regex is tried, if it is too large.
fn search(texts: &[Vec<u8>]) -> Option<AhoCorasick> {
    // A table of all transitions is the fastest, and takes 1 KiB for each byte of the texts.
    const TABLE_TEXTS_BYTES_MAX: usize = 64 * 1024;
    let bytes: usize = texts.iter().map(Vec::len).sum();
    let kind = match bytes <= TABLE_TEXTS_BYTES_MAX {
        true => AhoCorasickKind::DFA,
        false => AhoCorasickKind::ContiguousNFA,
    };
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .kind(Some(kind))
        .build(texts)
        .ok()
}

/// The texts that were seen in a path: each counts once, or a path that repeats one costs its
/// regexes again and again.
struct Seen {
    /// For each text, the look-up that saw it last.
    last: Vec<u32>,
    lookup: u32,
}

thread_local! {
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen { last: Vec::new(), lookup: 0 }) };
}

impl Seen {
    fn begin(&mut self, texts: usize) {
        if self.last.len() < texts {
            self.last.resize(texts, 0);
        }
        self.lookup = self.lookup.checked_add(1).unwrap_or_else(|| {
            self.last.fill(0);
            1
        });
    }

    fn is_new(&mut self, text: usize) -> bool {
        std::mem::replace(&mut self.last[text], self.lookup) != self.lookup
    }
}
