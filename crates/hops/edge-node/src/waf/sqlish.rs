//! Doubts about fingerprints of SQL that ordinary texts have too.

/// Returns whether a text with a fingerprint that libinjection takes for an attack is one.
pub(super) fn is_certain(_tokens: &[u8], _text: &[u8]) -> bool {
    true
}
