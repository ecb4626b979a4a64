//! Memory for pieces of bodies that is used again.
//!
//! Memory of this size that is freed goes back to the system, and its pages are zeroed before they
//! come again: that takes longer than the copy.

use std::{cell::RefCell, collections::VecDeque};

use bytes::{Bytes, BytesMut};

/// Copies pieces. One per thread.
#[derive(Debug, Default)]
pub(crate) struct Pieces(RefCell<VecDeque<BytesMut>>);

/// Shortest piece for which memory is kept.
const PIECE_BYTES_MIN: usize = 16 * 1024;

/// Size of the memory of a piece: as much as is read at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// Most pieces for which memory is kept.
const PIECES_MAX: usize = 64;

impl Pieces {
    /// Copies a piece.
    pub(crate) fn copy(&self, bytes: &[u8]) -> Bytes {
        if !(PIECE_BYTES_MIN..=PIECE_BYTES).contains(&bytes.len()) {
            return Bytes::copy_from_slice(bytes);
        }
        let mut kept = self.0.borrow_mut();
        // It can be used again once nobody has the piece that was in it.
        let first = kept.pop_front().map(|mut memory| {
            let is_free = memory.try_reclaim(bytes.len());
            (memory, is_free)
        });
        let mut memory = match first {
            Some((free, true)) => free,
            busy => {
                kept.extend(busy.map(|(memory, _)| memory));
                BytesMut::with_capacity(PIECE_BYTES)
            }
        };
        memory.extend_from_slice(bytes);
        let piece = memory.split().freeze();
        if kept.len() < PIECES_MAX {
            kept.push_back(memory);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_its_piece_is_gone() {
        let pieces = Pieces::default();
        let bytes = vec![7; PIECE_BYTES];
        let first = pieces.copy(&bytes);
        let at = first.as_ptr();
        let second = pieces.copy(&bytes);
        assert_eq!((&first[..], &second[..]), (&bytes[..], &bytes[..]));
        assert_ne!(second.as_ptr(), at);
        drop(first);
        let third = pieces.copy(&bytes[1..]);
        assert_eq!(third.as_ptr(), at);
        assert_eq!(&second[..], &bytes[..]);
    }

    #[test]
    fn so_much_memory_is_kept_and_no_more() {
        let pieces = Pieces::default();
        let bytes = vec![7; PIECE_BYTES];
        let held: Vec<_> = (0..2 * PIECES_MAX).map(|_| pieces.copy(&bytes)).collect();
        assert!(held.iter().all(|piece| piece[..] == bytes[..]));
        assert!(pieces.0.borrow().len() <= PIECES_MAX);
        for length in [0, 1, PIECE_BYTES_MIN, PIECE_BYTES + 1] {
            assert_eq!(pieces.copy(&vec![1; length]).len(), length);
        }
    }
}
