//! Prefixes and wildcards: a tree of segments.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::memchr;

use super::{
    pattern::{End, Segment},
    slots::{NO_RANK, Slot, Slots},
};

/// Up to so many segments are compared one by one, which is faster than to hash.
const FEW: usize = 4;

/// The prefixes and wildcards of a group of hosts.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// The best rank in this node and below it.
    best: u32,
    texts: HashMap<Box<str>, usize, RandomState>,
    /// The same as `texts`, as long as they are few.
    few: Vec<(Box<str>, usize)>,
    any: Option<usize>,
    here: Slots,
    below: Slots,
    here_or_below: Slots,
}

impl Node {
    fn new() -> Self {
        Self {
            best: NO_RANK,
            texts: HashMap::default(),
            few: Vec::new(),
            any: None,
            here: Slots::default(),
            below: Slots::default(),
            here_or_below: Slots::default(),
        }
    }

    fn add(&mut self, text: &str, new: usize) -> usize {
        if self.few.len() < FEW && !self.texts.contains_key(text) {
            self.few.push((text.into(), new));
        }
        *self.texts.entry(text.into()).or_insert(new)
    }

    #[inline]
    fn child(&self, text: &str) -> Option<usize> {
        if self.texts.len() > FEW {
            return self.texts.get(text).copied();
        }
        let found = self.few.iter().find(|(known, _)| **known == *text);
        found.map(|(_, child)| *child)
    }
}

impl Trie {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::new()],
        }
    }

    /// Adds a route. Routes are added in the order of their ranks.
    pub(super) fn insert(&mut self, segments: &[Segment], end: End, slot: Slot) {
        let mut at = 0;
        for segment in segments {
            let new = self.nodes.len();
            let node = &mut self.nodes[at];
            node.best = node.best.min(slot.rank);
            at = match segment {
                Segment::Text(text) => node.add(text, new),
                Segment::Any => *node.any.get_or_insert(new),
            };
            if at == new {
                self.nodes.push(Node::new());
            }
        }
        let node = &mut self.nodes[at];
        node.best = node.best.min(slot.rank);
        match end {
            End::Here => node.here.push(slot),
            End::Below => node.below.push(slot),
            End::HereOrBelow => node.here_or_below.push(slot),
        }
    }

    /// Returns the best rank.
    #[inline]
    pub(super) fn best(&self) -> u32 {
        self.nodes[0].best
    }

    /// Lowers `best` to the rank of the best route that matches.
    pub(super) fn find(&self, path: &str, method: u32, best: &mut u32) {
        if let Some(rest) = path.strip_prefix('/') {
            self.descend(0, Some(rest), method, best);
        }
    }

    /// Goes down from a node; `rest` is what follows its slash. Branches that hold nothing better
    /// are left out, so no node is visited twice. The depth is that of the deepest route.
    fn descend(&self, at: usize, rest: Option<&str>, method: u32, best: &mut u32) {
        let node = &self.nodes[at];
        if node.best >= *best {
            return;
        }
        node.here_or_below.find(method, best);
        let Some(rest) = rest else {
            return node.here.find(method, best);
        };
        node.below.find(method, best);
        if node.texts.is_empty() && node.any.is_none() {
            return;
        }
        let (segment, rest) = match memchr(b'/', rest.as_bytes()) {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        if let Some(child) = node.child(segment) {
            self.descend(child, rest, method, best);
        }
        if let Some(child) = node.any.filter(|_| !segment.is_empty()) {
            self.descend(child, rest, method, best);
        }
    }
}
