//! Compares bodies with an expected digest.
//!
//! Hashing every body would take more CPU time than the load. So the first body is hashed; if its
//! digest is correct, all others are compared with its bytes.

use std::{cell::Cell, collections::HashMap, rc::Rc};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::requests::Turn;

/// Maximum length of all bodies that a thread keeps. Of further ones, the first is hashed, and no
/// other is compared.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The bodies that a thread's requests must get.
#[derive(Debug, Default)]
pub(crate) struct ExpectedBodies {
    bodies: HashMap<Turn, Bodies>,
    kept_bytes: usize,
}

impl ExpectedBodies {
    /// Begins to check the answer to a request, whose body must have this digest.
    pub(crate) fn begin(&mut self, turn: Turn, sha256: &str) -> Body {
        let bodies = self.bodies.entry(turn);
        bodies.or_insert_with(|| Bodies::new(sha256)).begin()
    }

    /// Returns whether a body was correct; `None` if it was not checked.
    pub(crate) fn end(&mut self, turn: Turn, body: Body) -> Option<bool> {
        let bodies = self.bodies.get_mut(&turn)?;
        let room_bytes = KEPT_BYTES_MAX - self.kept_bytes;
        let (is_right, kept_bytes) = bodies.end(body, room_bytes);
        self.kept_bytes += kept_bytes;
        is_right
    }
}

/// The expected body: its digest, and its bytes once they are known.
#[derive(Debug)]
struct Bodies {
    /// SHA-256 in lower-case hexadecimal.
    sha256: String,
    /// A body with that digest, once one has arrived.
    known: Option<Bytes>,
    /// Whether one has arrived that there was no room for.
    is_too_long: bool,
    /// Whether a body is being kept to be hashed. Only one is kept at a time: bodies may be long.
    is_learning: Rc<Cell<bool>>,
}

/// A body that is being received.
#[derive(Debug)]
pub(crate) enum Body {
    Unchecked,
    Compared {
        known: Bytes,
        at: usize,
        is_equal: bool,
    },
    Kept {
        bytes: Vec<u8>,
        _permit: Permit,
    },
}

/// Permission to keep a body. Dropping it gives the permission back.
#[derive(Debug)]
pub(crate) struct Permit(Rc<Cell<bool>>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Bodies {
    fn new(sha256: &str) -> Self {
        Self {
            sha256: sha256.to_ascii_lowercase(),
            known: None,
            is_too_long: false,
            is_learning: Rc::default(),
        }
    }

    fn begin(&self) -> Body {
        match &self.known {
            Some(known) => Body::Compared {
                known: known.clone(),
                at: 0,
                is_equal: true,
            },
            None if self.is_too_long || self.is_learning.replace(true) => Body::Unchecked,
            None => Body::Kept {
                bytes: Vec::new(),
                _permit: Permit(Rc::clone(&self.is_learning)),
            },
        }
    }

    /// Returns whether a body was correct, or `None` if it was not checked; and how many bytes are
    /// kept from now on. There is room for `room_bytes`.
    fn end(&mut self, body: Body, room_bytes: usize) -> (Option<bool>, usize) {
        match body {
            Body::Unchecked => (None, 0),
            Body::Compared {
                known,
                at,
                is_equal,
            } => (Some(is_equal && at == known.len()), 0),
            Body::Kept { bytes, .. } => {
                let is_right = hexadecimal(&Sha256::digest(&bytes)) == self.sha256;
                self.is_too_long = is_right && bytes.len() > room_bytes;
                let is_kept = is_right && !self.is_too_long;
                let kept_bytes = if is_kept { bytes.len() } else { 0 };
                self.known = is_kept.then(|| bytes.into());
                (Some(is_right), kept_bytes)
            }
        }
    }
}

impl Body {
    pub(crate) fn add(&mut self, data: &[u8]) {
        match self {
            Self::Unchecked => {}
            Self::Compared {
                known,
                at,
                is_equal,
            } => {
                *is_equal &= known.get(*at..).is_some_and(|rest| rest.starts_with(data));
                *at = at.saturating_add(data.len());
            }
            Self::Kept { bytes, .. } => bytes.extend_from_slice(data),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bodies: &mut Bodies, parts: &[&str]) -> Option<bool> {
        let mut body = bodies.begin();
        parts.iter().for_each(|part| body.add(part.as_bytes()));
        bodies.end(body, 4).0
    }

    #[test]
    fn the_first_right_body_is_what_the_others_are_compared_with() {
        // printf abcd | sha256sum
        let digest = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589";
        let mut bodies = Bodies::new(digest);
        assert_eq!(check(&mut bodies, &["abcx"]), Some(false));
        let learning = bodies.begin();
        assert_eq!(check(&mut bodies, &["abcd"]), None, "one at a time");
        // The request is given up halfway.
        drop(learning);
        assert_eq!(check(&mut bodies, &["ab", "cd"]), Some(true));
        assert!(bodies.known.is_some());
        for (parts, is_right) in [
            (&["abcd"][..], true),
            (&["a", "", "bcd"], true),
            (&["abcx"], false),
            (&["abc"], false),
            (&["abcd", "e"], false),
            (&["abcde", "f"], false),
            (&[], false),
        ] {
            assert_eq!(check(&mut bodies, parts), Some(is_right), "{parts:?}");
        }
        let mut too_long = Bodies::new(digest);
        let mut body = too_long.begin();
        body.add(b"abcd");
        assert_eq!(too_long.end(body, 3), (Some(true), 0));
        assert_eq!(
            check(&mut too_long, &["abcd"]),
            None,
            "there is no room for it"
        );
    }
}
