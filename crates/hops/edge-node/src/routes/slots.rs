//! Ranks, and the methods of routes that share a place in the table.

use super::pattern::Problem;

/// The methods that HTTP itself names; each has a bit.
const KNOWN: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
];

/// Most other methods in a table. One bit is left for those that no route names.
const OTHERS_MAX: usize = 31 - KNOWN.len();

/// The bit of methods that no route names.
const UNNAMED: u32 = 1 << 31;

/// Gives the methods of a table their bits.
#[derive(Debug, Default)]
pub(super) struct Methods {
    others: Vec<Box<str>>,
}

impl Methods {
    /// Returns the bits of a route's methods.
    pub(super) fn mask(&mut self, methods: &[String]) -> Result<u32, Problem> {
        if methods.is_empty() {
            return Ok(u32::MAX);
        }
        let mut mask = 0;
        for method in methods {
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if method.is_empty() || method.len() > 64 || !method.bytes().all(is_token) {
                return Err(Problem::BadMethod(super::pattern::shown(method)));
            }
            if self.bit(method) == UNNAMED {
                if self.others.len() == OTHERS_MAX {
                    return Err(Problem::TooManyMethods(method.clone(), OTHERS_MAX));
                }
                self.others.push(method.as_str().into());
            }
            mask |= self.bit(method);
        }
        Ok(mask)
    }

    /// Returns the bit of a request's method.
    #[inline]
    pub(super) fn bit(&self, method: &str) -> u32 {
        match method {
            "GET" => 1,
            "HEAD" => 1 << 1,
            "POST" => 1 << 2,
            "PUT" => 1 << 3,
            "DELETE" => 1 << 4,
            "OPTIONS" => 1 << 5,
            "PATCH" => 1 << 6,
            "CONNECT" => 1 << 7,
            "TRACE" => 1 << 8,
            other => match self.others.iter().position(|known| **known == *other) {
                Some(index) => 1 << (KNOWN.len() + index),
                None => UNNAMED,
            },
        }
    }
}

/// A rank that no route has: larger than all.
pub(super) const NO_RANK: u32 = u32::MAX;

/// A route in its place: its rank, and the bits of its methods.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) rank: u32,
    pub(super) methods: u32,
}

/// The routes of one place. One is the rule.
#[derive(Debug)]
pub(super) struct Slots {
    first: Slot,
    more: Vec<Slot>,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            first: Slot {
                rank: NO_RANK,
                methods: 0,
            },
            more: Vec::new(),
        }
    }
}

impl Slots {
    /// Adds a route. Routes are added in the order of their ranks.
    pub(super) fn push(&mut self, slot: Slot) {
        match self.first.rank {
            NO_RANK => self.first = slot,
            _ => self.more.push(slot),
        }
    }

    /// Lowers `best` to the rank of the first route that takes the method.
    #[inline]
    pub(super) fn find(&self, method: u32, best: &mut u32) {
        if self.first.rank >= *best {
            return;
        }
        if self.first.methods & method != 0 {
            *best = self.first.rank;
            return;
        }
        for slot in self.more.iter().take_while(|slot| slot.rank < *best) {
            if slot.methods & method != 0 {
                *best = slot.rank;
                return;
            }
        }
    }
}
