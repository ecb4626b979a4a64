//! Digests of bodies that came before. The same long body often comes again, and to find that out
//! by its tag costs a third of what its BLAKE3 digest costs.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use aegis::aegis128l::Aegis128LMac;

use super::rows::Digest;

/// Makes a tag of a body. AEGIS-128L is a MAC: without the key, which never leaves the process,
/// nobody can make two bodies with one tag.
pub(crate) type Tagger = Aegis128LMac<TAG_BYTES>;

const TAG_BYTES: usize = 16;

/// Digests of bodies by their tags.
pub(crate) struct Known {
    /// Is of this process alone.
    key: [u8; 16],
    digests: Mutex<HashMap<[u8; TAG_BYTES], Digest>>,
}

/// Most digests: less than a megabyte of memory.
const KNOWN_MAX: usize = 8_192;

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody shall read the key in a log.
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

impl Known {
    /// Knows nothing. The key must be random.
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            digests: Mutex::default(),
        }
    }

    /// Begins a tag.
    pub(crate) fn tagger(&self) -> Tagger {
        Tagger::new(&self.key)
    }

    /// Returns the digest of a body with this tag. If it isn't known, `digest` finds it out.
    pub(crate) fn digest_of(&self, tagger: Tagger, digest: impl FnOnce() -> Digest) -> Digest {
        let tag = tagger.finalize();
        let digests = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = digests().get(&tag) {
            return *digest;
        }
        let digest = digest();
        let mut digests = digests();
        if digests.len() >= KNOWN_MAX {
            // What is still of use is soon known again.
            digests.clear();
        }
        digests.insert(tag, digest);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagger(known: &Known, pieces: &[&[u8]]) -> Tagger {
        let mut tagger = known.tagger();
        pieces.iter().for_each(|piece| tagger.update(piece));
        tagger
    }

    #[test]
    fn a_body_is_known_however_it_comes_in_pieces() {
        let known = Known::new([1; 16]);
        let body = (0..=u8::MAX).cycle().take(100_000).collect::<Vec<_>>();
        let first = known.digest_of(tagger(&known, &[&body]), || [7; 32]);
        for at in [1, 31, 32, 4_096, 65_537, 99_999] {
            let (a, b) = body.split_at(at);
            let again = known.digest_of(tagger(&known, &[a, b]), || [8; 32]);
            assert_eq!(again, first, "{at}");
        }
    }

    #[test]
    fn another_body_isnt_taken_for_it() {
        let known = Known::new([1; 16]);
        let body = vec![0; 50_000];
        known.digest_of(tagger(&known, &[&body]), || [0; 32]);
        for at in 1..=64_u8 {
            let mut other = body.clone();
            other[usize::from(at) * 780] = 1;
            let digest = [at; 32];
            assert_eq!(
                known.digest_of(tagger(&known, &[&other]), || digest),
                digest
            );
        }
        let longer = vec![0; 50_001];
        assert_eq!(
            known.digest_of(tagger(&known, &[&longer]), || [99; 32]),
            [99; 32]
        );
    }

    #[test]
    fn memory_is_bounded() {
        let known = Known::new([1; 16]);
        for number in 0..3 * KNOWN_MAX {
            let body = number.to_le_bytes();
            known.digest_of(tagger(&known, &[&body]), || [1; 32]);
            assert!(known.digests.lock().expect("a lock").len() <= KNOWN_MAX);
        }
    }
}
