//! Deterministic response bodies.
//!
//! There are two families. [`large`] repeats a sentence: the payload of the published benchmark
//! that hopbench compares with. [`sequence`] numbers its own bytes, so that a tunnel which loses,
//! repeats or reorders a piece can't produce the right digest.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// The sentence that [`large`] repeats: 45 bytes, with the space.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog. ";

/// Number of repetitions: 45 × 5,825 = 262,125 bytes, just under 256 KiB.
const LARGE_REPEATS: usize = 5_825;

/// Length of [`large`] in bytes.
pub const LARGE_BYTES: usize = SENTENCE.len() * LARGE_REPEATS;

/// Longest body, in bytes, that is a slice of one prebuilt buffer. Longer bodies are streamed, so
/// that serving one takes memory for a piece of it and not for the whole.
pub const PREBUILT_BYTES: usize = 1 << 20;

/// Length of the pieces in which a longer body is streamed, in bytes.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Returns the repeated sentence.
pub fn large() -> Bytes {
    Bytes::from(SENTENCE.repeat(LARGE_REPEATS))
}

/// Fills `target`, which has the length of [`large`], with the repeated sentence.
pub fn fill_large(target: &mut [u8]) {
    let sentence = SENTENCE.as_bytes();
    let (first, _) = target.split_at_mut(sentence.len().min(target.len()));
    first.copy_from_slice(&sentence[..first.len()]);
    // Doubles the text until `target` is full, which takes only a few long copies.
    let mut done = first.len();
    while done < target.len() {
        let more = done.min(target.len() - done);
        target.copy_within(..more, done);
        done += more;
    }
}

/// Returns `length_bytes` bytes of the sequence, from `offset_bytes` on. The sequence is the
/// little-endian numbers 0, 1, 2 … of 8 bytes each, mixed so that neighbouring bytes differ.
pub fn sequence(offset_bytes: u64, length_bytes: usize) -> Bytes {
    let mut out = Vec::with_capacity(length_bytes + 16);
    let mut word = offset_bytes / 8;
    let skip = usize::try_from(offset_bytes % 8).expect("a remainder of 8 fits");
    while out.len() < length_bytes + skip {
        // The multiplier of SplitMix64 (Steele, Lea & Flood 2014), an odd constant: a bijection.
        out.extend_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        word += 1;
    }
    out.truncate(length_bytes + skip);
    Bytes::from(out).slice(skip..)
}

/// Returns the first `length_bytes` of the sequence in pieces of at most [`PIECE_BYTES`], made one
/// at a time.
pub fn pieces(length_bytes: u64) -> impl Iterator<Item = Bytes> + Send + 'static {
    let piece = PIECE_BYTES as u64;
    (0..length_bytes.div_ceil(piece)).map(move |index| {
        let offset = index * piece;
        let length = (length_bytes - offset).min(piece);
        sequence(
            offset,
            usize::try_from(length).expect("a piece fits in memory"),
        )
    })
}

/// Returns the SHA-256 of the pieces put together, in lower-case hexadecimal.
pub fn sha256_hex(pieces: impl IntoIterator<Item = Bytes>) -> String {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update(&piece);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn large_has_the_published_length() {
        assert_eq!(large().len(), 262_125);
        let mut filled = vec![0; LARGE_BYTES];
        fill_large(&mut filled);
        assert_eq!(large(), filled);
        fill_large(&mut []);
    }

    proptest! {
        /// However the sequence is cut, it is the same sequence.
        #[test]
        fn a_slice_of_the_sequence_is_the_sequence_from_there(
            offset in 0_usize..5_000,
            length in 0_usize..5_000,
        ) {
            let whole = sequence(0, 10_000);
            prop_assert_eq!(sequence(offset as u64, length), whole.slice(offset..offset + length));
        }
    }

    #[test]
    fn pieces_put_together_are_the_sequence() {
        for length in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, PREBUILT_BYTES] {
            let joined: Vec<u8> = pieces(length as u64).flatten().collect();
            assert_eq!(joined, sequence(0, length));
        }
    }

    #[test]
    fn digest_is_sha256() {
        // FIPS 180-2, appendix B.1.
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex([Bytes::from("a"), Bytes::from("bc")]), digest);
    }
}
