//! Relays bytes between a client and a target, in both directions, in one task.
//!
//! There are two ways. To *copy*, each worker has one buffer, into which every connection reads.
//! A connection keeps what can't be written at once. To *splice*, bytes stay in the kernel
//! and pass through a pipe, which a connection borrows from its worker while bytes are in it.
//! Either way, nothing more is read in a direction until what was read is written. So an idle
//! connection has neither buffer nor pipe, and a slow reader holds back the writer.

mod direction;
mod limit;
mod pipes;
mod socket;

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use serde::Deserialize;

pub(crate) use self::socket::Socket;
use self::{direction::Direction, limit::Limit, pipes::Pipes};

/// The buffer and the pipes that the connections of a worker share.
#[derive(Debug)]
pub(crate) struct Shared {
    buffer: Vec<u8>,
    pipes: Pipes,
}

/// How bytes get from one socket to the other.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Carry {
    /// By copying, and through pipes while many bytes come at a time.
    #[default]
    Auto,
    /// Through the worker's buffer.
    Copy,
    /// Through pipes, within the kernel.
    Splice,
}

/// How a connection is relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) carry: Carry,
    /// How long nothing may move once one side has closed its direction.
    pub(crate) half_closed_max: Option<Duration>,
    /// How long nothing may move in any case.
    pub(crate) idle_max: Option<Duration>,
}

/// Figures of a connection, and how it ended.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) bytes_up: usize,
    pub(crate) bytes_down: usize,
    /// Bytes of both directions that went through a pipe.
    pub(crate) bytes_spliced: usize,
    /// Times that bytes were copied since no pipe was to be had.
    pub(crate) pipes_missing: usize,
    pub(crate) end: End,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both directions have ended, and their ends were passed on.
    Whole,
    /// One side failed. The other one must not take that for an end.
    Failed(Side, io::Error),
    /// One side had closed its direction, and then nothing moved for too long.
    HalfClosed,
    /// Nothing moved for too long.
    Idle,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Target,
}

impl Shared {
    pub(crate) fn new(buffer_bytes: usize) -> Self {
        Self {
            buffer: vec![0; buffer_bytes],
            pipes: Pipes::default(),
        }
    }
}

/// Relays until both directions have ended, one side fails, or a time limit is reached.
///
/// The end of one direction is passed on, and the other goes on (RFC 9293, section 3.6). If a side
/// takes no more bytes, what it has sent is still delivered.
pub(crate) async fn relay(
    client: &Socket,
    target: &Socket,
    terms: &Terms,
    shared: &RefCell<Shared>,
) -> Relayed {
    let mut pair = Pair {
        up: Direction::new(terms.carry),
        down: Direction::new(terms.carry),
        idle: Limit::new(terms.idle_max),
        half_closed: Limit::new(terms.half_closed_max),
    };
    let relaying = poll_fn(|context| {
        let shared = &mut *shared.borrow_mut();
        pair.poll(context, client, target, shared)
    });
    let end = relaying.await;
    let Pair { up, down, .. } = pair;
    Relayed {
        bytes_up: up.carried,
        bytes_down: down.carried,
        bytes_spliced: up.spliced + down.spliced,
        pipes_missing: up.pipes_missing + down.pipes_missing,
        end,
    }
}

struct Pair {
    up: Direction,
    down: Direction,
    idle: Limit,
    half_closed: Limit,
}

impl Pair {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        client: &Socket,
        target: &Socket,
        shared: &mut Shared,
    ) -> Poll<End> {
        let Self { up, down, .. } = self;
        if let Poll::Ready(Err(error)) = up.poll(context, client, target, down.failure(), shared) {
            return Poll::Ready(End::Failed(Side::Client, error));
        }
        let carried = down.poll(context, target, client, up.failure(), shared);
        if let Poll::Ready(Err(error)) = carried {
            return Poll::Ready(End::Failed(Side::Target, error));
        }
        if up.is_over() && down.is_over() {
            return Poll::Ready(match (up.reset_of_writer(), down.reset_of_writer()) {
                (Some(error), _) => End::Failed(Side::Target, error),
                (None, Some(error)) => End::Failed(Side::Client, error),
                (None, None) => End::Whole,
            });
        }
        let is_half_closed = up.is_over() || down.is_over();
        let carried = up.carried + down.carried;
        if is_half_closed && self.half_closed.poll(context, carried) {
            return Poll::Ready(End::HalfClosed);
        }
        match self.idle.poll(context, carried) {
            true => Poll::Ready(End::Idle),
            false => Poll::Pending,
        }
    }
}
