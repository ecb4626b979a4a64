//! Moves bytes between a lane and a socket: from the kernel to shared memory, and back.

use std::{io, os::fd::BorrowedFd};

use shm_ring::{
    Violation,
    io::{PIECES_MAX, Readable, Received, Space},
};

use super::{HELD_BYTES_MAX, Lane, Read, Written, narrow};
use crate::ring::{link::RelayError, socket::RelaySocket};

/// Most bytes of one read into the arena.
const BULK_BYTES: usize = 256 * 1024;

/// Most pieces of one write out of a lane.
const PIECES: usize = 16;
const _: () = assert!(PIECES <= PIECES_MAX, "one call");

/// Most calls for one lane before other lanes come first, so that a lane that fills as fast as it
/// is emptied doesn't occupy its event loop.
pub(in crate::ring) const TURN_CALLS: usize = 16;

/// Most bytes of a read that is not worth a slot of the arena.
const OUTSIDE_BULK_BYTES: usize = 8 * 1024;

/// Length of a free piece from which on no second piece is added to it. Most of what is sent is
/// shorter, and a read into one piece costs less.
const ONE_PIECE_BYTES: u32 = 8 * 1024;

/// Fewest bytes for which a helper is woken: writing them takes about as long as waking it.
const BULK_TO_WRITE_BYTES: usize = 64 * 1024;

impl Lane {
    /// Reads from a socket straight into the lane's buffer, or into the arena if there is a lot.
    pub(in crate::ring) fn read_from(&mut self, source: &RelaySocket) -> Result<Read, RelayError> {
        if self.bulk {
            self.reclaim()?;
            if self.room() > 0
                && let Some(read) = self.read_bulk_from(source)?
            {
                self.stop_waiting();
                return Ok(read);
            }
        }
        if !self.has_room()? {
            return Ok(Read::NoRoom);
        }
        let [first, second] = self.spans.free();
        let (segment, side) = (&self.link.segment, self.link.side);
        let mut spaces = [first, second].map(|span| segment.space(self.index, side, span));
        // Each piece takes a descriptor.
        let pieces = match self.room() > 1 && first.length < ONE_PIECE_BYTES {
            true => &mut spaces[..],
            false => &mut spaces[..1],
        };
        let offered: usize = pieces.iter().map(Space::len).sum();
        let received = match read(source, pieces)? {
            Ok(received) => received,
            Err(nothing) => return Ok(nothing),
        };
        let count = received.bytes;
        self.bulk = count == offered;
        let in_first = count.min(first.length as usize);
        for length in [in_first, count - in_first] {
            if length > 0 {
                let span = self.spans.take(narrow(length));
                self.push_span(span);
            }
        }
        self.count_read(count);
        Ok(how_far(received, offered))
    }

    /// Reads a lot at once into the arena. Returns `None` if the arena has no room.
    fn read_bulk_from(&mut self, source: &RelaySocket) -> Result<Option<Read>, RelayError> {
        if self.held_bytes + BULK_BYTES > HELD_BYTES_MAX {
            return Ok(None);
        }
        let arena = self.link.arena();
        let Some(mut memory) = arena.and_then(|arena| arena.alloc(BULK_BYTES)) else {
            return Ok(None);
        };
        let received = match read(source, &mut [memory.space()])? {
            Ok(received) => received,
            Err(nothing) => return Ok(Some(nothing)),
        };
        let count = received.bytes;
        self.bulk = count > OUTSIDE_BULK_BYTES;
        self.push_lease(memory.into_lease(count), BULK_BYTES);
        self.count_read(count);
        Ok(Some(how_far(received, BULK_BYTES)))
    }

    fn count_read(&self, bytes: usize) {
        self.link.counters.bytes_in.add(bytes);
        self.link.counters.zero_copy_bytes.add(bytes);
        self.link.mark(self.index);
    }

    /// Writes what the peer has sent to a socket, straight from shared memory.
    pub(in crate::ring) fn write_to(
        &mut self,
        sink: BorrowedFd<'_>,
    ) -> Result<Written, RelayError> {
        for _ in 0..TURN_CALLS {
            let pending = self.receiver.pending()?;
            if pending == 0 {
                return Ok(Written::All);
            }
            let link = self.link.clone();
            let mut pieces = [const { None }; PIECES];
            let mut count = 0;
            let mut ended = false;
            for ahead in 0..pending.min(PIECES) {
                let Some(descriptor) = self.receiver.peek(ahead)? else {
                    break;
                };
                let Some(piece) = link.readable(self.index, descriptor)? else {
                    ended = true;
                    break;
                };
                let skip = if ahead == 0 { self.taken_bytes } else { 0 };
                pieces[count] = Some(piece.skip(skip.min(piece.len())));
                count += 1;
            }
            if count == 0 && ended {
                self.release(1);
                return Ok(Written::End);
            }
            let slices = pieces.map(|piece| piece.unwrap_or_else(Readable::empty));
            let written = match shm_ring::io::write(sink, &slices[..count]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Blocked);
                }
                Err(error) => return Err(error.into()),
            };
            let offered: usize = slices[..count].iter().map(Readable::len).sum();
            self.link.counters.bytes_out.add(written);
            self.written_bytes += written;
            self.advance(&slices[..count], written);
            if written < offered {
                return Ok(Written::Blocked);
            }
        }
        self.look_again();
        Ok(Written::More)
    }

    /// Returns whether the peer has sent a lot.
    pub(in crate::ring) fn has_bulk(&mut self) -> Result<bool, Violation> {
        let pending = self.receiver.pending()?;
        let mut bytes = 0;
        for ahead in 0..pending.min(PIECES) {
            if let Some(descriptor) = self.receiver.peek(ahead)?
                && let Some(piece) = self.link.readable(self.index, descriptor)?
            {
                bytes += piece.len();
            }
        }
        Ok(bytes >= BULK_TO_WRITE_BYTES)
    }
}

/// Reads from a socket. The inner error says that there was nothing, or that the stream has ended.
fn read(source: &RelaySocket, spaces: &mut [Space<'_>]) -> io::Result<Result<Received, Read>> {
    match source.read(spaces) {
        Ok(Received { bytes: 0, .. }) => Ok(Err(Read::End)),
        Ok(received) => Ok(Ok(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Err(Read::Nothing)),
        Err(error) => Err(error),
    }
}

/// Returns how far a read of bytes went.
fn how_far(received: Received, offered: usize) -> Read {
    if received.bytes == offered {
        Read::Full
    } else if received.is_cut {
        Read::Cut
    } else {
        Read::Some
    }
}
