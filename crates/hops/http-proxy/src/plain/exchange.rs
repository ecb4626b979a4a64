//! One plain request: sent, sent again where that is safe, and its answer passed on.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::AsyncWrite as _,
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    PlainRoute, Worker,
    answer::{self, For, Head, Rest},
    connection::{PlainConnection, poll_read},
    request::Sent,
};
use crate::{
    deadline::Deadline,
    exchange::{Failure, pause_before},
    upstream::{Target, UpstreamLimits},
    write::poll_pieces,
};

/// A client's side of an exchange.
#[derive(Debug)]
pub(super) struct ClientSide {
    pub(super) stream: TcpStream,
    /// Bytes for the client that it has not taken yet.
    pub(super) unsent: Vec<u8>,
    /// The rest of a body of our own, which comes after those.
    pub(super) unsent_body: Bytes,
    pub(super) deadline: Deadline,
    /// How long it may take nothing.
    pub(super) idle: Duration,
}

/// A plain request that is passed on.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a mut ClientSide,
    pub(super) route: PlainRoute,
    /// The request as the upstream gets it.
    pub(super) request: &'a [u8],
    pub(super) sent: Sent,
    pub(super) begin: Instant,
    /// Whether some of an answer has been passed on, but not all.
    is_under_way: bool,
    /// Whether an interim answer has been passed on.
    has_interim: bool,
}

/// The end of an exchange for the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It takes another request.
    Kept,
    /// It ends.
    Closed,
    /// It ends with a reset, so that the client doesn't take a cut answer for a whole one.
    Cut,
}

/// A failed attempt.
struct Failed {
    failure: Failure,
    /// Whether another attempt is safe.
    is_safe: bool,
    /// Whether a connection failed that had waited, as it may at any time.
    is_stale: bool,
}

/// A part of an answer that was read.
enum Part {
    /// An interim answer, or not yet a whole head.
    More,
    Head(Head, bool),
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        worker: &'a Rc<Worker>,
        client: &'a mut ClientSide,
        route: PlainRoute,
        request: &'a [u8],
        sent: Sent,
    ) -> Self {
        Self {
            worker,
            client,
            route,
            request,
            sent,
            begin: Instant::now(),
            is_under_way: false,
            has_interim: false,
        }
    }

    /// Sends the request and passes the answer on.
    pub(super) async fn run(mut self) -> End {
        match self.answered().await {
            Ok((connection, head, is_whole)) => {
                if is_whole {
                    self.finish(connection, &head);
                    return self.flush().await;
                }
                self.pass_body(connection, head).await
            }
            Err(failure) if self.is_under_way => {
                tracing::debug!("an answer was cut off: {failure}");
                End::Cut
            }
            Err(failure) => self.answer_failed(&failure).await,
        }
    }

    /// Makes attempts until one brings a head of an answer, which is passed on.
    async fn answered(&mut self) -> Result<(Box<PlainConnection>, Head, bool), Failure> {
        let upstreams = Arc::clone(&self.route.upstreams);
        let mut target = Arc::clone(upstreams.pick(&[]));
        let mut may_reuse = true;
        let mut tried = Vec::new();
        loop {
            let Failed {
                failure,
                is_safe,
                is_stale,
            } = match self.attempt(&target, may_reuse).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            if !is_safe || self.is_under_way || self.has_interim {
                return Err(failure);
            }
            if is_stale {
                // A request that meets a connection that was just closed gets another attempt
                // beyond the limit, but on a new connection.
                may_reuse = false;
                continue;
            }
            let retries = u32::try_from(tried.len()).unwrap_or(u32::MAX);
            if retries >= upstreams.limits.retries_max {
                return Err(failure);
            }
            tracing::debug!("another attempt after '{target}': {failure}");
            self.worker.proxy.pool().counters.retries.add(1);
            tried.push(target.id);
            target = Arc::clone(upstreams.pick(&tried));
            if tried.len() >= upstreams.count() {
                let pause = pause_before(retries + 1);
                if Instant::now() + pause >= self.until() {
                    return Err(failure);
                }
                sleep(pause).await;
            }
        }
    }

    async fn attempt(
        &mut self,
        target: &Arc<Target>,
        may_reuse: bool,
    ) -> Result<(Box<PlainConnection>, Head, bool), Failed> {
        let waiting = may_reuse.then(|| self.worker.proxy.pool().take_plain(target));
        let mut connection = match waiting.flatten() {
            Some(connection) => connection,
            None => self.connect(target).await?,
        };
        match self.ask(&mut connection).await {
            Ok((head, is_whole)) => {
                target.succeeded();
                Ok((connection, head, is_whole))
            }
            Err((failure, has_received)) => {
                let is_late = matches!(failure, Failure::Late);
                if is_late || !connection.is_reused {
                    target.failed();
                }
                let is_safe = !is_late && !has_received && self.sent.is_idempotent;
                Err(Failed {
                    is_safe,
                    is_stale: is_safe && connection.is_reused,
                    failure,
                })
            }
        }
    }

    async fn connect(&self, target: &Arc<Target>) -> Result<Box<PlainConnection>, Failed> {
        let left = self.until().saturating_duration_since(Instant::now());
        let at_most = self.limits().connect.min(left);
        let connecting = self.worker.proxy.pool().connect_plain(target, at_most);
        connecting.await.map_err(|error| {
            target.failed();
            Failed {
                failure: Failure::Unreachable(error),
                is_safe: true,
                is_stale: false,
            }
        })
    }

    /// Sends the request on a connection and waits for the head of the answer, which is passed on.
    /// A failure says whether anything had been received.
    async fn ask(
        &mut self,
        connection: &mut PlainConnection,
    ) -> Result<(Head, bool), (Failure, bool)> {
        let begin = match connection.is_reused {
            true => self.begin,
            false => Instant::now(),
        };
        let due = self.until().min(begin + self.limits().head);
        connection.deadline.set_at(due);
        let mut unsent = self.request;
        let mut early = Vec::new();
        poll_fn(|context| {
            while !unsent.is_empty() {
                match Pin::new(&mut connection.stream).poll_write(context, unsent) {
                    Poll::Ready(Ok(written)) => unsent = &unsent[written..],
                    // It may have answered before it closed.
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
            let read = self.poll_head(context, connection, &mut early);
            if let Poll::Ready(read) = read {
                let has_received = !early.is_empty();
                let read = read.map_err(|failure| (failure, has_received));
                return Poll::Ready(read.map(|(mut head, is_whole)| {
                    // An early answer leaves a request behind that is sent in part.
                    head.is_kept &= unsent.is_empty();
                    (head, is_whole)
                }));
            }
            match connection.deadline.poll_passed(context) {
                Poll::Ready(()) => Poll::Ready(Err((Failure::Late, true))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Reads until the head of the final answer is whole. What has come of it before is in `early`.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        connection: &mut PlainConnection,
        early: &mut Vec<u8>,
    ) -> Poll<Result<(Head, bool), Failure>> {
        let worker = Rc::clone(self.worker);
        let mut buffers = worker.buffers.borrow_mut();
        let buffers = &mut *buffers;
        loop {
            let read = poll_read(&mut connection.stream, context, &mut buffers.input);
            let length = match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(Failure::Broken(error.into())));
                }
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Broken(error.into()))),
            };
            let passed = if early.is_empty() {
                self.pass_head(
                    context,
                    &buffers.input[..length],
                    early,
                    &mut buffers.output,
                )
            } else {
                early.extend_from_slice(&buffers.input[..length]);
                let bytes = mem::take(early);
                self.pass_head(context, &bytes, early, &mut buffers.output)
            };
            match passed {
                Ok(Part::More) => {}
                Ok(Part::Head(head, is_whole)) => return Poll::Ready(Ok((head, is_whole))),
                Err(failure) => {
                    // Something has been received, whatever it was.
                    early.push(0);
                    return Poll::Ready(Err(failure));
                }
            }
        }
    }

    /// Passes on the interim answers in `bytes`, and the final one with what has come of its body.
    /// A head that isn't whole yet is kept in `early`.
    fn pass_head(
        &mut self,
        context: &mut Context<'_>,
        mut bytes: &[u8],
        early: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Part, Failure> {
        out.clear();
        let date = self.worker.date();
        let client = For {
            is_head: self.sent.is_head,
            closes: self.sent.closes,
            date: &date,
        };
        let mut head = loop {
            let before = out.len();
            let head = answer::pass(bytes, client, out);
            let head = head.map_err(|error| Failure::Broken(error.into()))?;
            let Some(head) = head else {
                if bytes.len() > HEAD_BYTES_MAX {
                    return Err(Failure::Broken("the head of its answer is too long".into()));
                }
                early.extend_from_slice(bytes);
                self.write(context, &[out]);
                return Ok(Part::More);
            };
            bytes = &bytes[head.bytes..];
            match head.status {
                101 => return Err(Failure::Broken("it changed the protocol unasked".into())),
                // The client doesn't wait for it.
                100 => out.truncate(before),
                102..200 => self.has_interim = true,
                _ => break head,
            }
        };
        let (length, has_ended) = head.rest.follow(bytes)?;
        head.is_kept &= length == bytes.len();
        self.is_under_way = true;
        if let Some(entry) = &mut self.route.entry {
            entry.answered_with(head.status);
            entry.body_bytes += length as u64;
        }
        match head.rest {
            Rest::UntilClosed => {
                write_chunk(out, bytes);
                self.write(context, &[out]);
            }
            _ => self.write(context, &[out, &bytes[..length]]),
        }
        Ok(Part::Head(head, has_ended))
    }

    /// Passes the rest of an answer's body on.
    async fn pass_body(&mut self, mut connection: Box<PlainConnection>, mut head: Head) -> End {
        let passed = poll_fn(|context| self.poll_body(context, &mut connection, &mut head)).await;
        match passed {
            Ok(()) => {
                self.finish(connection, &head);
                self.flush().await
            }
            Err(error) => {
                tracing::debug!("an answer was cut off: {error}");
                End::Cut
            }
        }
    }

    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        connection: &mut PlainConnection,
        head: &mut Head,
    ) -> Poll<Result<(), Failure>> {
        let worker = Rc::clone(self.worker);
        let mut buffers = worker.buffers.borrow_mut();
        let buffers = &mut *buffers;
        let until = self.until();
        loop {
            // Nothing is read before the client has what was read.
            match self.client.poll_flush(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Broken(error.into()))),
                Poll::Pending => return Poll::Pending,
            }
            let length = match poll_read(&mut connection.stream, context, &mut buffers.input) {
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Broken(error.into()))),
                Poll::Pending => {
                    let late = connection.deadline.poll_passed(context);
                    return late.map(|()| Err(Failure::Late));
                }
            };
            let due = until.min(Instant::now() + self.limits().idle);
            connection.deadline.set_at(due);
            let bytes = &buffers.input[..length];
            if bytes.is_empty() {
                let Rest::UntilClosed = head.rest else {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(Failure::Broken(error.into())));
                };
                self.write(context, &[b"0\r\n\r\n"]);
                return Poll::Ready(Ok(()));
            }
            let (length, has_ended) = head.rest.follow(bytes)?;
            head.is_kept &= length == bytes.len();
            if let Some(entry) = &mut self.route.entry {
                entry.body_bytes += length as u64;
            }
            if let Rest::UntilClosed = head.rest {
                buffers.output.clear();
                write_chunk(&mut buffers.output, bytes);
                self.write(context, &[&buffers.output]);
            } else {
                self.write(context, &[&bytes[..length]]);
            }
            if has_ended {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Notes that the upstream's part is done.
    fn finish(&mut self, connection: Box<PlainConnection>, head: &Head) {
        let pool = self.worker.proxy.pool();
        pool.counters.answers_passed.add(1);
        self.is_under_way = false;
        if let Some(entry) = &mut self.route.entry {
            entry.is_whole = true;
        }
        if head.is_kept {
            pool.put_plain(connection);
        }
    }

    /// Waits until the client has taken everything.
    async fn flush(&mut self) -> End {
        match poll_fn(|context| self.client.poll_flush(context)).await {
            Ok(()) if self.sent.closes => End::Closed,
            Ok(()) => End::Kept,
            Err(error) => {
                tracing::debug!("an answer was cut off: {error}");
                End::Cut
            }
        }
    }

    /// Answers a request that got no answer.
    async fn answer_failed(&mut self, failure: &Failure) -> End {
        let (status, text) = self.worker.proxy.note_failed(failure);
        let status = status.as_u16();
        if let Some(entry) = &mut self.route.entry {
            entry.answered_with(status);
            entry.body_bytes = text.len() as u64 + 1;
            entry.is_whole = true;
        }
        let date = self.worker.date();
        let client = For {
            is_head: self.sent.is_head,
            closes: self.sent.closes,
            date: &date,
        };
        answer::write_own(&mut self.client.unsent, status, text, client);
        self.flush().await
    }

    /// Writes to the client, and keeps what it doesn't take now.
    fn write(&mut self, context: &mut Context<'_>, pieces: &[&[u8]]) {
        self.client.write(context, pieces);
    }

    fn limits(&self) -> &UpstreamLimits {
        &self.route.upstreams.limits
    }

    /// Returns when everything must be over.
    fn until(&self) -> Instant {
        self.begin + self.limits().total
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if self.is_under_way {
            self.worker.proxy.pool().counters.answers_cut.add(1);
        }
        if let Some(entry) = self.route.entry.take() {
            entry.log();
        }
    }
}

impl Rest {
    /// Follows the next bytes of the body. Returns how many belong to it, and whether it has ended.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(usize, bool), Failure> {
        match self {
            Self::Bytes(left) => {
                let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= here as u64;
                Ok((here, *left == 0))
            }
            Self::Chunks(chunks) => {
                let followed = chunks.follow(bytes);
                let here = followed.map_err(|error| Failure::Broken(error.into()))?;
                Ok((here, chunks.has_ended()))
            }
            Self::UntilClosed => Ok((bytes.len(), false)),
        }
    }
}

impl ClientSide {
    /// Writes pieces, and keeps what isn't taken now. An error shows at the next flush.
    fn write(&mut self, context: &mut Context<'_>, pieces: &[&[u8]]) {
        let mut written = 0;
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.unsent.is_empty() && length > 0 {
            let [first, second]: [&[u8]; 2] = match *pieces {
                [first, second] => [first, second],
                [only] => [only, &[]],
                _ => [&[], &[]],
            };
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            let count = if second.is_empty() { 1 } else { 2 };
            let stream = Pin::new(&mut self.stream);
            if let Poll::Ready(Ok(now)) = poll_pieces(stream, context, &slices[..count]) {
                written = now;
            }
        }
        for piece in pieces {
            let here = written.min(piece.len());
            written -= here;
            self.unsent.extend_from_slice(&piece[here..]);
        }
    }

    /// Writes an answer of our own, and keeps what isn't taken now. A body is kept without a copy.
    pub(super) fn write_own(&mut self, context: &mut Context<'_>, head: &[u8], mut body: Bytes) {
        let mut written = 0;
        let slices = [IoSlice::new(head), IoSlice::new(&body)];
        let count = if body.is_empty() { 1 } else { 2 };
        let stream = Pin::new(&mut self.stream);
        if let Poll::Ready(Ok(now)) = poll_pieces(stream, context, &slices[..count]) {
            written = now;
        }
        let of_head = written.min(head.len());
        self.unsent.extend_from_slice(&head[of_head..]);
        self.unsent_body = body.split_off(written - of_head);
    }

    /// Writes what is left. Fails once the client has taken nothing for too long.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut written = 0;
        let result = loop {
            let unsent = match &self.unsent[written.min(self.unsent.len())..] {
                [] => &self.unsent_body[written - self.unsent.len()..],
                unsent => unsent,
            };
            if unsent.is_empty() {
                if !self.unsent.is_empty() {
                    // Its memory is rarely needed again.
                    self.unsent = Vec::new();
                }
                self.unsent_body = Bytes::new();
                self.deadline.clear();
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(context, unsent) {
                Poll::Ready(Ok(now)) => written += now,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        let of_copied = written.min(self.unsent.len());
        self.unsent.drain(..of_copied);
        self.unsent_body.advance(written - of_copied);
        if written > 0 || !self.deadline.is_set() {
            self.deadline.set(self.idle);
        }
        if result.is_pending() && self.deadline.poll_passed(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Appends a chunk. No bytes are none: an empty chunk would be the last.
pub(super) fn write_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}
