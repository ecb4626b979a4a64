//! Whether bodies are those that they should be.
//!
//! Hashing every answer would take more CPU time than the load. So the first one is hashed, and if
//! its digest is right, all others are compared with its bytes.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// What bodies are compared with.
#[derive(Debug)]
pub(crate) struct Bodies {
    /// In lower-case hexadecimal.
    sha256: String,
    /// A body of that digest, once one was seen.
    known: Option<Bytes>,
    /// One body at a time is kept to be hashed: they may be long.
    is_learning: Rc<Cell<bool>>,
}

/// A body, as it comes in.
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

/// To keep a body. Given back however that ends.
#[derive(Debug)]
pub(crate) struct Permit(Rc<Cell<bool>>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Bodies {
    pub(crate) fn new(sha256: &str) -> Self {
        Self {
            sha256: sha256.to_ascii_lowercase(),
            known: None,
            is_learning: Rc::default(),
        }
    }

    pub(crate) fn begin(&self) -> Body {
        match &self.known {
            Some(known) => Body::Compared {
                known: known.clone(),
                at: 0,
                is_equal: true,
            },
            None if self.is_learning.replace(true) => Body::Unchecked,
            None => Body::Kept {
                bytes: Vec::new(),
                _permit: Permit(Rc::clone(&self.is_learning)),
            },
        }
    }

    /// Whether a body was the right one; `None` if it was not looked at.
    pub(crate) fn end(&mut self, body: Body) -> Option<bool> {
        match body {
            Body::Unchecked => None,
            Body::Compared {
                known,
                at,
                is_equal,
            } => Some(is_equal && at == known.len()),
            Body::Kept { bytes, .. } => {
                let is_right = hexadecimal(&Sha256::digest(&bytes)) == self.sha256;
                if is_right {
                    self.known = Some(bytes.into());
                }
                Some(is_right)
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
        bodies.end(body)
    }

    #[test]
    fn the_first_right_body_is_what_the_others_are_compared_with() {
        // printf abcd | sha256sum
        let digest = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589";
        let mut bodies = Bodies::new(digest);
        assert_eq!(check(&mut bodies, &["abcx"]), Some(false));
        let learning = bodies.begin();
        assert_eq!(check(&mut bodies, &["abcd"]), None, "one at a time");
        // Given up half way.
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
    }
}
