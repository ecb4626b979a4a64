//! Frames over a Unix or TCP socket.

use std::sync::Arc;

use rapace::{Transport, TransportError};

use super::{IncomingFrame, LinkError, Outgoing, Sender, decode, encode};
use crate::{
    copy,
    counters::Counters,
    framed::cork::{Corked, GATHER_BYTES, Socket},
};

#[derive(Debug)]
pub(in crate::framed) struct StreamSender {
    transport: Transport,
    corked: Corked,
    sequence: u64,
    counters: Arc<Counters>,
    /// Number of frames since the last flush.
    gathered: usize,
}

/// Receives frames over a stream, in a task.
#[derive(Debug)]
pub(in crate::framed) struct StreamReceiver {
    transport: Transport,
    sequence: u64,
    counters: Arc<Counters>,
}

/// Makes a stream link of a connected socket. No payload over `payload_bytes_max` is received.
pub(in crate::framed) fn stream_link(
    socket: Socket,
    payload_bytes_max: usize,
    counters: &Arc<Counters>,
) -> (Sender, StreamReceiver) {
    let (stream, corked) = Corked::new(socket, payload_bytes_max, counters.clone());
    let transport = Transport::stream(stream);
    let receiver = StreamReceiver {
        transport: transport.clone(),
        sequence: 0,
        counters: counters.clone(),
    };
    let counters = counters.clone();
    let sender = StreamSender {
        transport,
        corked,
        sequence: 0,
        counters,
        gathered: 0,
    };
    (Sender::Stream(sender), receiver)
}

impl StreamSender {
    pub(super) async fn send(&mut self, frame: Outgoing) -> Result<(), LinkError> {
        if frame.payload.len() <= GATHER_BYTES {
            copy::by_rapace(&self.counters, frame.payload.len());
        }
        self.gathered += 1;
        let frame = encode(frame, &mut self.sequence);
        self.counters.frames_sent.add(1);
        // This is never cancelled half-way: a frame that is cut short corrupts the session. The
        // writer task ends only after this has returned.
        self.transport
            .send_frame(frame)
            .await
            .map_err(LinkError::Transport)
    }

    pub(super) async fn flush(&mut self) -> Result<(), LinkError> {
        let gathered = std::mem::take(&mut self.gathered);
        self.counters
            .doorbells_suppressed
            .add(gathered.saturating_sub(1));
        Ok(self.corked.flush().await?)
    }
}

impl StreamReceiver {
    /// Returns the next frame; `None` when the peer has closed the stream.
    pub(in crate::framed) async fn receive(&mut self) -> Result<Option<IncomingFrame>, LinkError> {
        let frame = match self.transport.recv_frame().await {
            Ok(frame) => frame,
            Err(TransportError::Closed) => return Ok(None),
            Err(error) => return Err(LinkError::Transport(error)),
        };
        self.counters.frames_received.add(1);
        let incoming = decode(frame, &mut self.sequence)?;
        copy::by_rapace(&self.counters, incoming.payload().len());
        Ok(Some(incoming))
    }
}
