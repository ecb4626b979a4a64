//! The only place where the data plane copies payload.
//!
//! The counters of copies can be trusted because all copies are here: a test reads the rest of the
//! source and finds no other (`tests/tidy.rs` of hopbench). A function either counts what it copies
//! or says who does.

use bytes::{BufMut, Bytes, BytesMut};
use shm_ring::{
    Writable,
    io::{Readable, Space},
};
use tokio::io::ReadBuf;

use crate::counters::Counters;

/// Copies payload to the heap.
pub(crate) fn to_heap(counters: &Counters, payload: &[u8]) -> Bytes {
    counters.copied_bytes.add(payload.len());
    Bytes::copy_from_slice(payload)
}

/// Copies payload and appends it to `target`.
pub(crate) fn append(counters: &Counters, target: &mut BytesMut, payload: &[u8]) {
    counters.copied_bytes.add(payload.len());
    target.put_slice(payload);
}

/// Copies as much payload as fits into a reader's buffer. Returns how many bytes it copied.
pub(crate) fn to_reader(counters: &Counters, target: &mut ReadBuf<'_>, payload: &[u8]) -> usize {
    let length = fill(target, payload);
    counters.copied_bytes.add(length);
    length
}

/// Copies payload from a lane to a reader. Returns how many bytes it copied.
pub(crate) fn out_of_lane(counters: &Counters, from: Readable<'_>, target: &mut [u8]) -> usize {
    let length = from.copy_to(target);
    counters.copied_bytes.add(length);
    length
}

/// Copies as much payload as fits into a lane's buffer, from `offset` on. Returns how many bytes it
/// copied.
pub(crate) fn into_lane(
    counters: &Counters,
    payload: &[u8],
    space: &mut Space<'_>,
    offset: usize,
) -> usize {
    let length = space.copy_from(offset, payload);
    counters.copied_bytes.add(length);
    length
}

/// Copies payload into the arena.
pub(crate) fn into_arena(counters: &Counters, payload: &[u8], memory: &mut Writable) {
    counters.copied_bytes.add(payload.len());
    memory[..payload.len()].copy_from_slice(payload);
}

/// Counts a copy that rapace makes on our behalf.
pub(crate) fn by_rapace(counters: &Counters, payload_bytes: usize) {
    counters.copied_bytes.add(payload_bytes);
}

/// Copies as much as fits. Doesn't count it: the bytes are framing, or payload whose receipt counts
/// as one copy, whichever way it takes.
pub(crate) fn fill(target: &mut ReadBuf<'_>, bytes: &[u8]) -> usize {
    let length = bytes.len().min(target.remaining());
    target.put_slice(&bytes[..length]);
    length
}

/// Copies bytes and appends them to `target`. Doesn't count them: they are framing, or payload that
/// the sender counts.
pub(crate) fn gather(target: &mut Vec<u8>, bytes: &[u8]) {
    target.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_copy_of_payload_is_counted() {
        let counters = Counters::default();
        assert_eq!(to_heap(&counters, b"four"), "four");
        append(&counters, &mut BytesMut::new(), b"four");
        let mut space = [0; 3];
        assert_eq!(
            to_reader(&counters, &mut ReadBuf::new(&mut space), b"four"),
            3
        );
        by_rapace(&counters, 4);
        assert_eq!(counters.copied_bytes.get(), 4 + 4 + 3 + 4);
    }
}
