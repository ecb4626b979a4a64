//! One plain request: sent, sent again where that is safe, and its answer passed on.

use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::AsyncWrite as _,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    AnswerTap, PlainRoute, Worker,
    answer::{self, For, Head, Rest},
    client::ClientSide,
    connection::{PlainConnection, poll_read},
    request::Sent,
};
use crate::{
    exchange::{Failure, pause_before},
    upstream::{Target, UpstreamLimits},
};

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
    /// Makes the connection end after the answer.
    stop: &'a CancellationToken,
    /// The bytes of the request that this attempt has sent.
    sent_bytes: usize,
    /// Whether this attempt has received anything.
    has_received: bool,
    /// Number of interim answers.
    interims: usize,
    /// Whether the answer waits for the client to take what there is.
    is_flushing: bool,
    /// Whether some of an answer has been passed on, but not all.
    is_under_way: bool,
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
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            worker,
            client,
            route,
            request,
            sent,
            begin: Instant::now(),
            stop,
            sent_bytes: 0,
            has_received: false,
            interims: 0,
            is_flushing: false,
            is_under_way: false,
        }
    }

    /// Sends the request and passes the answer on.
    pub(super) async fn run(mut self) -> End {
        match self.answered().await {
            Ok((connection, head, is_whole)) => {
                if is_whole {
                    self.release(connection, &head);
                    return self.finish(&head.rest).await;
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
            if !is_safe || self.is_under_way || self.interims > 0 {
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
            Err(failure) => {
                let is_late = matches!(failure, Failure::Late);
                if is_late || !connection.is_reused {
                    target.failed();
                }
                let is_safe = !is_late && !self.has_received && self.sent.is_idempotent;
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
    async fn ask(&mut self, connection: &mut PlainConnection) -> Result<(Head, bool), Failure> {
        let begin = match connection.is_reused {
            true => self.begin,
            false => Instant::now(),
        };
        let due = self.until().min(begin + self.limits().head);
        connection.deadline.set_at(due);
        (self.sent_bytes, self.has_received) = (0, false);
        let mut early = Vec::new();
        poll_fn(|context| {
            self.poll_send(context, connection);
            let read = self.poll_head(context, connection, &mut early, due);
            if read.is_pending() && connection.deadline.poll_passed(context).is_ready() {
                return Poll::Ready(Err(Failure::Late));
            }
            read
        })
        .await
    }

    /// Sends what the upstream takes of the request. An error shows when the answer is read: it may
    /// have come before the upstream closed.
    fn poll_send(&mut self, context: &mut Context<'_>, connection: &mut PlainConnection) {
        while let unsent @ [_, ..] = &self.request[self.sent_bytes..] {
            match Pin::new(&mut connection.stream).poll_write(context, unsent) {
                Poll::Ready(Ok(written)) => self.sent_bytes += written,
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    /// Reads until the head of the final answer is whole. What has come of it before is in `early`.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        connection: &mut PlainConnection,
        early: &mut Vec<u8>,
        due: Instant,
    ) -> Poll<Result<(Head, bool), Failure>> {
        let worker = Rc::clone(self.worker);
        let mut buffers = worker.buffers.borrow_mut();
        let buffers = &mut *buffers;
        loop {
            // Interim answers must not pile up.
            ready!(self.client.poll_flush(context)).map_err(broken)?;
            let read = poll_read(&mut connection.stream, context, &mut buffers.input);
            let length = ready!(read).map_err(broken)?;
            if length == 0 {
                return Poll::Ready(Err(broken(io::ErrorKind::UnexpectedEof.into())));
            }
            self.has_received = true;
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
            match passed? {
                Part::More if Instant::now() >= due => return Poll::Ready(Err(Failure::Late)),
                Part::More => {}
                Part::Head(head, is_whole) => return Poll::Ready(Ok((head, is_whole))),
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
        let client = self.answer_for(&date);
        let mut raw;
        let mut head = loop {
            let before = out.len();
            let head = answer::pass(bytes, client, out);
            let head = head.map_err(|error| Failure::Broken(error.into()))?;
            let Some(head) = head else {
                if bytes.len() > HEAD_BYTES_MAX {
                    return Err(Failure::Broken("the head of its answer is too long".into()));
                }
                early.extend_from_slice(bytes);
                self.client.write(context, out, &[]);
                return Ok(Part::More);
            };
            (raw, bytes) = (bytes, &bytes[head.bytes..]);
            self.interims += usize::from(head.status < 200);
            if self.interims > INTERIMS_MAX {
                return Err(Failure::Broken("it gave too many interim answers".into()));
            }
            match head.status {
                101 => return Err(Failure::Broken("it changed the protocol unasked".into())),
                // The client doesn't wait for it.
                100 => out.truncate(before),
                102..200 => {}
                _ => break head,
            }
        };
        let tap = &mut self.route.tap;
        if let Some(tap) = tap {
            tap.head(&raw[..raw.len() - bytes.len()]);
        }
        let (length, has_ended) = head.rest.follow(bytes, tap)?;
        self.is_under_way = true;
        head.is_kept &= length == bytes.len();
        if let Some(entry) = &mut self.route.entry {
            entry.answered_with(head.status);
            head.rest.count(length, &mut entry.body_bytes);
        }
        let bytes = match head.rest {
            Rest::UntilClosed => {
                write_chunk(out, bytes);
                &[]
            }
            _ => &bytes[..length],
        };
        match has_ended {
            true => self.write_last(context, out, bytes),
            false => self.client.write(context, out, bytes),
        }
        Ok(Part::Head(head, has_ended))
    }

    /// Passes the rest of an answer's body on.
    async fn pass_body(&mut self, mut connection: Box<PlainConnection>, mut head: Head) -> End {
        self.expect_more(&mut connection);
        let passed = poll_fn(|context| self.poll_body(context, &mut connection, &mut head)).await;
        match passed {
            Ok(()) => {
                self.release(connection, &head);
                self.finish(&head.rest).await
            }
            Err(error) => {
                tracing::debug!("an answer was cut off: {error}");
                End::Cut
            }
        }
    }

    /// Gives the upstream time for the next piece of a body.
    fn expect_more(&self, connection: &mut PlainConnection) {
        let due = self.until().min(Instant::now() + self.limits().idle);
        connection.deadline.set_at(due);
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
        loop {
            // An early answer may come before the upstream has the whole request.
            self.poll_send(context, connection);
            // Nothing is read before the client has what was read.
            if self
                .client
                .poll_flush(context)
                .map_err(broken)?
                .is_pending()
            {
                self.is_flushing = true;
                connection.deadline.set_at(self.until());
                let late = connection.deadline.poll_passed(context);
                return late.map(|()| Err(Failure::Late));
            }
            if mem::take(&mut self.is_flushing) {
                self.expect_more(connection);
            }
            let read = poll_read(&mut connection.stream, context, &mut buffers.input);
            let Poll::Ready(length) = read.map_err(broken)? else {
                let late = connection.deadline.poll_passed(context);
                return late.map(|()| Err(Failure::Late));
            };
            self.expect_more(connection);
            let bytes = &buffers.input[..length];
            if bytes.is_empty() {
                let Rest::UntilClosed = head.rest else {
                    return Poll::Ready(Err(broken(io::ErrorKind::UnexpectedEof.into())));
                };
                self.write_last(context, b"0\r\n\r\n", &[]);
                return Poll::Ready(Ok(()));
            }
            let (length, has_ended) = head.rest.follow(bytes, &mut self.route.tap)?;
            head.is_kept &= length == bytes.len();
            if let Some(entry) = &mut self.route.entry {
                head.rest.count(length, &mut entry.body_bytes);
            }
            if let Rest::UntilClosed = head.rest {
                buffers.output.clear();
                write_chunk(&mut buffers.output, bytes);
                self.client.write(context, &buffers.output, &[]);
            } else if has_ended {
                self.write_last(context, &[], &bytes[..length]);
                return Poll::Ready(Ok(()));
            } else {
                self.client.write(context, &bytes[..length], &[]);
            }
        }
    }

    /// Writes the last bytes of an answer, or holds them back until the tap has seen the end.
    fn write_last(&mut self, context: &mut Context<'_>, first: &[u8], second: &[u8]) {
        match self.route.tap {
            Some(_) => self.client.hold_end(context, first, second),
            None => self.client.write(context, first, second),
        }
    }

    /// Gives a connection back that has brought a whole answer, if it takes another request.
    fn release(&self, connection: Box<PlainConnection>, head: &Head) {
        // An early answer leaves a request behind that is sent in part.
        if head.is_kept && self.sent_bytes == self.request.len() {
            self.worker.proxy.pool().put_plain(connection);
        }
    }

    /// Waits until the client has taken the answer.
    async fn finish(&mut self, rest: &Rest) -> End {
        if let Some(tap) = self.route.tap.take() {
            let trailers = match rest {
                Rest::Chunks(chunks) => chunks.trailers(),
                Rest::Bytes(_) | Rest::UntilClosed => &[],
            };
            tap.end(trailers).await;
        }
        let end = self.flush().await;
        if end != End::Cut {
            self.worker.proxy.pool().counters.answers_passed.add(1);
            self.is_under_way = false;
            if let Some(entry) = &mut self.route.entry {
                entry.is_whole = true;
            }
        }
        end
    }

    /// Waits until the client has taken everything.
    async fn flush(&mut self) -> End {
        if !self.client.is_flushed() {
            let until = self.until();
            let flushed = poll_fn(|context| self.client.poll_flush(context));
            let flushed = timeout_at(until, flushed).await;
            if let Err(error) = flushed.map_err(io::Error::from).flatten() {
                tracing::debug!("an answer was cut off: {error}");
                return End::Cut;
            }
        }
        match self.sent.closes {
            true => End::Closed,
            false => End::Kept,
        }
    }

    /// Answers a request that got no answer.
    async fn answer_failed(&mut self, failure: &Failure) -> End {
        let (status, text) = self.worker.proxy.note_failed(failure);
        let status = status.as_u16();
        let date = self.worker.date();
        let client = self.answer_for(&date);
        answer::write_own(&mut self.client.unsent, status, text, client);
        let end = self.flush().await;
        if let Some(entry) = &mut self.route.entry {
            entry.answered_with(status);
            entry.is_whole = end != End::Cut;
            if !self.sent.is_head {
                entry.body_bytes = text.len() as u64 + 1;
            }
        }
        end
    }

    /// Says for whom an answer is made now.
    fn answer_for<'b>(&mut self, date: &'b str) -> For<'b> {
        self.sent.closes |= self.stop.is_cancelled();
        For {
            is_head: self.sent.is_head,
            closes: self.sent.closes,
            date,
        }
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
    /// Adds to the number of a body's bytes, of which so many have come. What frames chunks doesn't
    /// count.
    fn count(&self, length: usize, body_bytes: &mut u64) {
        match self {
            Self::Chunks(chunks) => *body_bytes = chunks.data_bytes(),
            Self::Bytes(_) | Self::UntilClosed => *body_bytes += length as u64,
        }
    }

    /// Follows the next bytes of the body, and shows its data to the tap. Returns how many belong
    /// to it, and whether it has ended.
    pub(super) fn follow(
        &mut self,
        bytes: &[u8],
        tap: &mut Option<Box<dyn AnswerTap>>,
    ) -> Result<(usize, bool), Failure> {
        let mut show = |data: &[u8]| {
            if let Some(tap) = tap
                && !data.is_empty()
            {
                tap.piece(data);
            }
        };
        match self {
            Self::Bytes(left) => {
                let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= here as u64;
                show(&bytes[..here]);
                Ok((here, *left == 0))
            }
            Self::Chunks(chunks) => {
                let followed = chunks.follow(bytes, show);
                let here = followed.map_err(|error| Failure::Broken(error.into()))?;
                Ok((here, chunks.has_ended()))
            }
            Self::UntilClosed => {
                show(bytes);
                Ok((bytes.len(), false))
            }
        }
    }
}

/// Most interim answers to a request.
const INTERIMS_MAX: usize = 32;

fn broken(error: io::Error) -> Failure {
    Failure::Broken(error.into())
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
