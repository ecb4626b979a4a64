//! One side's end of a connection's lane.
//!
//! A lane carries one connection after the other; each is a *generation*. The host opens a lane,
//! and may use it again when both sides have said that they are done with it. Each side's state
//! word says which generation it is about, and one of these states:
//!
//! | state | meaning |
//! |---|---|
//! | open | The connection goes on |
//! | closed | I read and send nothing more. What I sent is valid; without an end it was cut off |
//! | reset | I am gone. I read nothing more, and what I sent is void |
//!
//! A side says *closed* when it has received the other's end and sent its own. So does a relay
//! whose upstream has reset its connection: what the upstream had sent before is delivered all the
//! same.

mod socket;

use std::{collections::VecDeque, io, sync::Arc};

use shm_ring::{
    Descriptor, Lease, MappedWords, Receiver, Sender, Span, Spans, StateWord, Violation,
    io::Readable,
};

pub(super) use self::socket::TURN_CALLS;
use super::link::Link;
use crate::{copy, counters::Counters};

#[derive(Debug)]
pub(super) struct Lane {
    link: Arc<Link>,
    index: usize,
    generation: u64,
    sender: Sender<MappedWords>,
    /// Parts of the lane's buffer that are in flight.
    spans: Spans,
    /// One entry for each descriptor in flight, in their order.
    in_flight: VecDeque<InFlight>,
    /// Bytes of the arena that are held by what is in flight.
    held_bytes: usize,
    receiver: Receiver<MappedWords>,
    /// Bytes that were already taken of the first descriptor that is not released.
    taken_bytes: usize,
    /// Bytes written out since [`Self::take_written`] was last called.
    written_bytes: usize,
    state: StateWord,
    peer_state: StateWord,
    /// Whether the last read found so much that the next one should go into the arena.
    bulk: bool,
    waiting_for_room: bool,
}

#[derive(Debug)]
enum InFlight {
    Arena { _lease: Lease, held_bytes: usize },
    Buffer,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Closed,
    Reset,
}

/// Result of reading into a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The peer has to make room.
    NoRoom,
    Nothing,
    /// The source has ended.
    End,
    /// Fewer bytes than there was room: there are no more now, unless urgent data or the end is
    /// next.
    Some,
    /// Fewer bytes than there was room, but there may be more.
    Cut,
    /// As many bytes as there was room.
    Full,
}

/// Result of writing out of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// There is no more for now.
    All,
    /// The sink takes no more for now.
    Blocked,
    /// There is more, but other lanes come first.
    More,
    /// All is written, and no more will come.
    End,
}

/// Most bytes that one lane may hold in the arena, so that a few slow readers can't take all of it.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Shortest copy that goes to the arena. In a lane's buffer it would take several rounds.
const COPY_TO_ARENA_BYTES: usize = 4096;
/// Longest copy that goes to the arena.
const COPY_BYTES_MAX: usize = 64 * 1024;

impl Lane {
    /// Makes this side look at this lane again, after all others that have work.
    pub(super) fn look_again(&self) {
        self.link.ready.mark(self.index);
    }

    /// Returns whether a lane was marked for which the peer may still have to be woken.
    pub(super) fn is_unrung(&self) -> bool {
        self.link.is_unrung()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.link.counters
    }

    /// Opens a lane for a new generation; neither side may be using it. Host only.
    pub(super) fn open(link: &Arc<Link>, index: usize, generation: u64) -> Self {
        link.segment.clear(index);
        Self::new(link, index, generation)
    }

    /// Makes this side's end of a lane that the host has opened.
    pub(super) fn new(link: &Arc<Link>, index: usize, generation: u64) -> Self {
        let (segment, side) = (&link.segment, link.side);
        let geometry = segment.geometry();
        let capacity = match side {
            shm_ring::Side::Host => geometry.inbound_bytes,
            shm_ring::Side::Plugin => geometry.outbound_bytes,
        };
        let lane = Self {
            link: link.clone(),
            index,
            generation,
            sender: segment.sender(index, side),
            spans: Spans::new(capacity),
            in_flight: VecDeque::new(),
            held_bytes: 0,
            receiver: segment.receiver(index, side),
            taken_bytes: 0,
            written_bytes: 0,
            state: segment.state(index, side),
            peer_state: segment.state(index, side.other()),
            bulk: false,
            waiting_for_room: false,
        };
        lane.set_state(State::Open);
        lane
    }

    /// Returns the generation and the state that a state word holds.
    pub(super) fn decode(word: u64) -> (u64, State) {
        let state = match word & 3 {
            0 => State::Open,
            1 => State::Closed,
            _ => State::Reset,
        };
        (word >> 2, state)
    }

    fn set_state(&self, state: State) {
        self.state.publish(self.generation << 2 | state as u64);
    }

    /// Returns the peer's state in this generation. A peer that has gone on to the next one is done
    /// with this one.
    pub(super) fn peer_state(&self) -> State {
        match Self::decode(self.peer_state.read()) {
            (generation, state) if generation == self.generation => state,
            (generation, _) if generation > self.generation => State::Closed,
            _ => State::Open,
        }
    }

    /// Ends this side, which reads nothing more of the peer's. With `Reset`, what it sent is void.
    pub(super) fn finish(&mut self, state: State) {
        self.set_state(state);
        self.link.mark(self.index);
    }

    /// Returns whether the peer has consumed everything that was sent, so that it can be forgotten.
    pub(super) fn is_drained(&mut self) -> Result<bool, Violation> {
        self.reclaim()?;
        Ok(self.in_flight.is_empty())
    }

    /// Returns whether a plugin's lane that is finished can be forgotten: the host is done with it,
    /// too, or has consumed everything.
    ///
    /// # Errors
    /// If the host's count is impossible.
    pub(super) fn is_done(&mut self) -> Result<bool, Violation> {
        let drained = self.is_drained();
        // The state is read last. Once both sides are done, the host may use the lane anew, and
        // what was found in the lane may be of that use (E7).
        if self.peer_state() == State::Open {
            drained
        } else {
            Ok(true)
        }
    }

    /// Takes back what the peer has consumed.
    fn reclaim(&mut self) -> Result<(), Violation> {
        let count = self.sender.refresh()?;
        self.give_back(count);
        Ok(())
    }

    fn give_back(&mut self, count: usize) {
        for done in self.in_flight.drain(..count) {
            match done {
                InFlight::Arena { held_bytes, .. } => self.held_bytes -= held_bytes,
                InFlight::Buffer => {
                    self.spans.give_back();
                }
                InFlight::End => {}
            }
        }
    }

    /// Returns how many descriptors for bytes can be pushed. One entry is kept for the end.
    fn room(&self) -> usize {
        self.sender.room().saturating_sub(1)
    }

    /// Returns whether bytes can be sent. If not, the peer will mark this lane when they can.
    pub(super) fn has_room(&mut self) -> Result<bool, Violation> {
        let free = |lane: &Self| {
            let [first, _] = lane.spans.free();
            lane.room() > 0 && first.length > 0
        };
        if self.sender.in_flight() > 0 {
            self.reclaim()?;
        }
        if !free(self) {
            let count = self.sender.wait_for_room()?;
            self.waiting_for_room = true;
            self.give_back(count);
            if !free(self) {
                self.link.counters.ring_full_stalls.add(1);
                return Ok(false);
            }
        }
        self.stop_waiting();
        Ok(true)
    }

    fn stop_waiting(&mut self) {
        if self.waiting_for_room {
            self.waiting_for_room = false;
            self.sender.stop_waiting();
        }
    }

    fn push_span(&mut self, span: Span) {
        let Span { offset, length } = span;
        let pushed = self.sender.push(Descriptor::Buffer { offset, length });
        assert!(pushed.is_ok(), "room was made sure of");
        self.in_flight.push_back(InFlight::Buffer);
    }

    /// Sends a lease. It holds `held_bytes` of the arena until the peer has consumed it.
    fn push_lease(&mut self, lease: Lease, held_bytes: usize) {
        let (offset, length) = (lease.offset(), lease.len());
        let pushed = self.sender.push(Descriptor::Arena { offset, length });
        assert!(pushed.is_ok(), "room was made sure of");
        self.held_bytes += held_bytes;
        self.in_flight.push_back(InFlight::Arena {
            _lease: lease,
            held_bytes,
        });
    }

    /// Sends the end. There is always room for it.
    pub(super) fn send_end(&mut self) {
        let pushed = self.sender.push(Descriptor::End);
        assert!(pushed.is_ok(), "one entry is kept for the end");
        self.in_flight.push_back(InFlight::End);
        self.link.mark(self.index);
    }

    /// Returns how many bytes were written out since the last [`Self::take_written`].
    pub(super) fn written(&self) -> usize {
        self.written_bytes
    }

    /// Returns how many bytes were written out since the last call.
    pub(super) fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written_bytes)
    }

    /// Releases the descriptors whose bytes were taken, and remembers how much of the next one was.
    fn advance(&mut self, pieces: &[Readable<'_>], mut taken: usize) {
        let mut done = 0;
        for piece in pieces {
            if taken < piece.len() {
                break;
            }
            taken -= piece.len();
            done += 1;
        }
        self.taken_bytes = if done == 0 {
            self.taken_bytes + taken
        } else {
            taken
        };
        if done > 0 {
            self.release(done);
        }
    }

    fn release(&mut self, count: usize) {
        if self.receiver.release(count) {
            self.link.mark(self.index);
        }
    }

    /// Copies what the peer has sent to a reader in this process. Returns how many bytes it copied;
    /// `None` if the peer's stream has ended.
    pub(super) fn copy_to(&mut self, target: &mut [u8]) -> Result<Option<usize>, Violation> {
        let link = self.link.clone();
        let mut copied = 0;
        if self.receiver.pending()? == 0 {
            return Ok(Some(0));
        }
        while copied < target.len()
            && let Some(descriptor) = self.receiver.peek(0)?
        {
            let Some(piece) = link.readable(self.index, descriptor)? else {
                if copied > 0 {
                    break;
                }
                self.release(1);
                return Ok(None);
            };
            let left = piece.skip(self.taken_bytes.min(piece.len()));
            let length = copy::out_of_lane(&link.counters, left, &mut target[copied..]);
            copied += length;
            self.advance(&[left], length);
        }
        link.counters.bytes_out.add(copied);
        Ok(Some(copied))
    }

    /// Returns how many bytes wait to be copied out, at least; 0 if there are none or the stream
    /// has ended.
    pub(super) fn waiting_bytes(&mut self) -> Result<usize, Violation> {
        self.receiver.pending()?;
        let Some(descriptor) = self.receiver.peek(0)? else {
            return Ok(0);
        };
        let piece = self.link.readable(self.index, descriptor)?;
        Ok(piece.map_or(0, |piece| piece.len().saturating_sub(self.taken_bytes)))
    }

    /// Sends bytes of this process: by reference if they are in the arena, as a copy otherwise.
    /// Returns how many; 0 if there is no room, in which case the peer will mark this lane.
    pub(super) fn send(&mut self, slices: &[io::IoSlice<'_>]) -> Result<usize, Violation> {
        if !self.has_room()? {
            return Ok(0);
        }
        let mut sent = 0;
        let mut slices = slices.iter().filter(|slice| !slice.is_empty()).peekable();
        while let Some(slice) = slices.next() {
            if self.room() == 0 {
                break;
            }
            let length = match self.lease_or_copy(slice) {
                Some(length) => length,
                None => self.copy_together(slice, &mut slices),
            };
            sent += length;
            if length < slice.len() {
                break;
            }
        }
        if sent > 0 {
            self.link.counters.bytes_in.add(sent);
            self.link.mark(self.index);
        }
        Ok(sent)
    }

    /// Sends a slice through the arena, if it is there or too long for the lane's buffer.
    fn lease_or_copy(&mut self, slice: &[u8]) -> Option<usize> {
        let link = self.link.clone();
        let arena = link.arena()?;
        if let Some(lease) = arena.lease(slice) {
            link.counters.zero_copy_bytes.add(slice.len());
            self.push_lease(lease, slice.len());
            return Some(slice.len());
        }
        let length = slice.len().min(COPY_BYTES_MAX);
        if length < COPY_TO_ARENA_BYTES || self.held_bytes + length > HELD_BYTES_MAX {
            return None;
        }
        let mut memory = arena.alloc(length)?;
        copy::into_arena(&link.counters, &slice[..length], &mut memory);
        self.push_lease(memory.into_lease(length), length);
        Some(length)
    }

    /// Copies a slice to the lane's buffer, and the slices behind it as long as they are short and
    /// fit. So a head and a small body take one descriptor. Returns how many bytes it copied.
    fn copy_together<'a>(
        &mut self,
        slice: &[u8],
        rest: &mut std::iter::Peekable<impl Iterator<Item = &'a io::IoSlice<'a>>>,
    ) -> usize {
        let [span, _] = self.spans.free();
        let link = self.link.clone();
        let mut space = link.segment.space(self.index, link.side, span);
        let mut length = copy::into_lane(&link.counters, slice, &mut space, 0);
        while length >= slice.len()
            && let Some(next) = rest.next_if(|next| {
                next.len() < COPY_TO_ARENA_BYTES && length + next.len() <= space.len()
            })
        {
            length += copy::into_lane(&link.counters, next, &mut space, length);
        }
        if length > 0 {
            let span = self.spans.take(narrow(length));
            self.push_span(span);
        }
        length
    }
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).expect("a lane's buffer is below 4 GiB")
}
