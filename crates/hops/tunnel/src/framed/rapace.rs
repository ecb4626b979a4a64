//! rapace's two transports as links: something that sends frames and something that receives them.
//!
//! Everything specific to rapace 0.5.0 is here, with the reason for each precaution. Its API is
//! used as published: `send_frame`, `recv_frame`, and for shared memory the session's own ring and
//! futexes to wait on. One task sends and one receiver receives, because rapace's shared-memory
//! enqueue is not safe for several producers.

mod shm;
mod stream;

use std::io;

use bytes::Bytes;
use rapace::{Frame, FrameFlags, MsgDescHot, TransportError};
use rapace_core::Payload;

pub use self::shm::Slots;
pub(crate) use self::shm::{SLOTS_MIN, SlotCounters};
use self::{shm::ShmSender, stream::StreamSender};
pub(super) use self::{
    shm::{ShmLink, ShmReceiver, create_segment, open_segment, shm_link},
    stream::{StreamReceiver, stream_link},
};
use super::mux::{FrameViolation, Kind};
use crate::{copy, counters::Counters};

/// Payloads up to this length travel inside rapace's descriptor.
const INLINE_BYTES: usize = 16;

/// A frame to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) kind: Kind,
    pub(super) tunnel: u32,
    /// Credit in bytes, for [`Kind::Credit`].
    pub(super) value: u32,
    /// Payload, for [`Kind::Data`].
    pub(super) payload: Bytes,
}

/// A frame that was received and whose descriptor was checked.
#[derive(Debug)]
pub(super) struct IncomingFrame {
    pub(super) kind: Kind,
    pub(super) tunnel: u32,
    pub(super) value: u32,
    frame: Frame,
}

/// Reason why a link ended, other than that its peer has left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the peer broke the protocol")]
    Violation(#[from] FrameViolation),
    #[error("rapace: {0}")]
    Transport(TransportError),
    #[error("the socket to the peer failed")]
    Io(#[from] io::Error),
}

/// Sends frames, in order, from one task.
#[derive(Debug)]
pub(super) enum Sender {
    Shm(ShmSender),
    Stream(StreamSender),
}

impl Sender {
    /// Sends one frame; it may stay gathered until [`Self::flush`].
    pub(super) async fn send(&mut self, frame: Outgoing) -> Result<(), LinkError> {
        match self {
            Self::Shm(sender) => sender.send(frame).await,
            Self::Stream(sender) => sender.send(frame).await,
        }
    }

    /// Sends the gathered frames.
    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        match self {
            Self::Shm(_) => Ok(()),
            Self::Stream(sender) => sender.flush().await,
        }
    }
}

impl IncomingFrame {
    pub(super) fn payload(&self) -> &[u8] {
        match self.kind {
            Kind::Data => self.frame.payload_bytes(),
            _ => &[],
        }
    }

    /// Returns the payload as bytes on the heap: moved if it is there already, copied if it is in a
    /// slot.
    pub(super) fn into_heap(self, counters: &Counters) -> Bytes {
        match self.frame.payload {
            Payload::Owned(payload) => Bytes::from(payload),
            Payload::Bytes(payload) => payload,
            _ => copy::to_heap(counters, self.payload()),
        }
    }
}

fn encode(outgoing: Outgoing, sequence: &mut u64) -> Frame {
    let mut descriptor = MsgDescHot::new();
    descriptor.msg_id = *sequence;
    descriptor.channel_id = outgoing.tunnel;
    descriptor.method_id = outgoing.kind as u32;
    descriptor.credit_grant = outgoing.value;
    descriptor.flags = match outgoing.kind {
        Kind::Credit => FrameFlags::CREDITS,
        Kind::Data => FrameFlags::DATA,
        Kind::End => FrameFlags::EOS,
        Kind::Open => FrameFlags::CONTROL,
        Kind::Reset => FrameFlags::ERROR,
    };
    *sequence += 1;
    match outgoing.kind {
        Kind::Data => Frame::with_bytes(descriptor, outgoing.payload),
        _ => Frame::new(descriptor),
    }
}

fn decode(frame: Frame, sequence: &mut u64) -> Result<IncomingFrame, FrameViolation> {
    let descriptor = &frame.desc;
    // rapace slices the descriptor by this length unchecked, and panics.
    if frame.payload.is_inline() && descriptor.payload_len as usize > INLINE_BYTES {
        return Err(FrameViolation::PayloadLength(descriptor.payload_len));
    }
    if descriptor.msg_id != *sequence {
        return Err(FrameViolation::Sequence {
            expected: *sequence,
            found: descriptor.msg_id,
        });
    }
    *sequence += 1;
    let kind = Kind::try_from(descriptor.method_id)?;
    let (tunnel, value) = (descriptor.channel_id, descriptor.credit_grant);
    Ok(IncomingFrame {
        kind,
        tunnel,
        value,
        frame,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_makes_rapace_panic_is_a_violation() {
        let mut descriptor = MsgDescHot::new();
        descriptor.payload_len = 17;
        let error = decode(Frame::new(descriptor), &mut 0).unwrap_err();
        assert_eq!(error, FrameViolation::PayloadLength(17));
    }

    #[test]
    fn a_frame_out_of_sequence_is_a_violation() {
        let outgoing = Outgoing {
            kind: Kind::End,
            tunnel: 1,
            value: 0,
            payload: Bytes::new(),
        };
        let frame = encode(outgoing, &mut 5);
        let error = decode(frame, &mut 4).unwrap_err();
        assert_eq!(
            error,
            FrameViolation::Sequence {
                expected: 4,
                found: 5
            }
        );
    }
}
