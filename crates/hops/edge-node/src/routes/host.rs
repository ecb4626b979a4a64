//! Hosts: exact ones, those below a name, and any.

use std::{cmp::Reverse, collections::HashMap};

use foldhash::fast::RandomState;

use super::pattern::{Problem, shown};

/// Longest name of a host, as DNS has it.
const HOST_BYTES_MAX: usize = 253;

/// The hosts that a route matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum HostPattern {
    Exact(String),
    /// Every host below this name, at any depth.
    Below(String),
    Any,
}

impl HostPattern {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else {
            return Ok(Self::Any);
        };
        let bad = || Problem::BadHost(shown(text));
        let lower = text.to_ascii_lowercase();
        let below = lower.strip_prefix("*.");
        let name = below.unwrap_or(&lower);
        let pattern = match below {
            Some(_) => Self::Below,
            None => Self::Exact,
        };
        let is_address = name.starts_with('[') && name.ends_with(']') && below.is_none();
        let inner = match is_address {
            true => &name[1..name.len() - 1],
            false => name.strip_suffix('.').unwrap_or(name),
        };
        if inner.is_empty() || inner.len() > HOST_BYTES_MAX {
            return Err(bad());
        }
        let is_good = match is_address {
            true => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            false => inner.split('.').all(is_label),
        };
        match (is_good, is_address) {
            (false, _) => Err(bad()),
            (true, true) => Ok(pattern(name.to_owned())),
            (true, false) => Ok(pattern(inner.to_owned())),
        }
    }

    /// Returns what sorts hosts: the smaller is the more specific.
    pub(super) fn specificity(&self) -> (u8, Reverse<usize>) {
        match self {
            Self::Exact(_) => (0, Reverse(0)),
            Self::Below(name) => (1, Reverse(name.split('.').count())),
            Self::Any => (2, Reverse(0)),
        }
    }
}

fn is_label(label: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty() && label.len() <= 63 && label.bytes().all(is_good)
}

/// Finds the group of a host.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, usize, RandomState>,
    below: HashMap<Box<str>, usize, RandomState>,
    /// Labels of the deepest name in `below`; a request's host is not read further.
    labels_max: usize,
    any: Option<usize>,
}

impl Hosts {
    /// Returns the group of a pattern; `new` becomes it if there is none.
    pub(super) fn group(&mut self, pattern: &HostPattern, new: usize) -> usize {
        match pattern {
            HostPattern::Exact(name) => *self.exact.entry(name.as_str().into()).or_insert(new),
            HostPattern::Below(name) => {
                self.labels_max = self.labels_max.max(name.split('.').count());
                *self.below.entry(name.as_str().into()).or_insert(new)
            }
            HostPattern::Any => *self.any.get_or_insert(new),
        }
    }

    /// Calls `each` with the groups of a host, the most specific first.
    #[inline]
    pub(super) fn each(&self, host: &str, mut each: impl FnMut(usize)) {
        if !self.exact.is_empty() || !self.below.is_empty() {
            self.each_named(host, &mut each);
        }
        if let Some(group) = self.any {
            each(group);
        }
    }

    fn each_named(&self, host: &str, each: &mut impl FnMut(usize)) {
        let mut lower = [0; HOST_BYTES_MAX];
        let Some(host) = bare(host, &mut lower) else {
            return;
        };
        if let Some(group) = self.exact.get(host) {
            each(*group);
        }
        if !self.below.is_empty() {
            self.each_below(host, each);
        }
    }

    fn each_below(&self, host: &str, each: &mut impl FnMut(usize)) {
        let labels = 1 + host.bytes().filter(|byte| *byte == b'.').count();
        let mut rest = host;
        for left in (1..labels).rev() {
            let Some((_, parent)) = rest.split_once('.') else {
                return;
            };
            rest = parent;
            if left <= self.labels_max
                && let Some(group) = self.below.get(parent)
            {
                each(*group);
            }
        }
    }
}

/// Returns a host without port and final dot, in lower case.
fn bare<'a>(host: &'a str, lower: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a str> {
    let name = match host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &host[..end + 2],
        None => {
            let name = host.split(':').next().unwrap_or_default();
            name.strip_suffix('.').unwrap_or(name)
        }
    };
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(name);
    }
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    str::from_utf8(lower).ok()
}
