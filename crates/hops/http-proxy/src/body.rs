//! The bodies of requests and answers on their way.

use std::{
    cell::Cell,
    error::Error as StdError,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::{
    access_log::Entry, counters::ProxyCounters, deadline::Deadline, guard::Busy, pool::Lease,
};

/// An error of a body.
pub type BodyError = Box<dyn StdError + Send + Sync>;

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Empty,
    /// A body that the hop has read.
    Whole(Bytes),
    Client(Box<Upload>),
}

/// A body that a client sends.
pub(crate) struct Upload {
    incoming: Incoming,
    tap: Option<UploadTap>,
    progress: Rc<Progress>,
    /// For a client that waits for `100 Continue`: whether to wait for the upstream's word.
    gate: Option<Gate>,
}

/// Is shown each piece of a request's body as it comes, and `None` at its end.
pub type UploadTap = Box<dyn FnMut(Option<&Bytes>)>;

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

/// How far an upload is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When the last of it came.
    pub(crate) at: Cell<Instant>,
    pub(crate) is_whole: Cell<bool>,
    /// Whether the client failed to send it.
    pub(crate) has_failed: Cell<bool>,
}

/// Holds back a body until the upstream has said that it wants it.
#[derive(Debug)]
struct Gate {
    is_open: Arc<AtomicBool>,
    deadline: Deadline,
}

/// How long a body is held back for an upstream that says nothing (RFC 9110, section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

impl RequestBody {
    /// Makes the body of a request. `continued` is set once the upstream has asked for the body, if
    /// the client waits for that.
    pub(crate) fn new(
        incoming: Incoming,
        continued: Option<Arc<AtomicBool>>,
    ) -> (Self, Option<Rc<Progress>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Rc::new(Progress {
            at: Cell::new(Instant::now()),
            is_whole: Cell::new(false),
            has_failed: Cell::new(false),
        });
        let upload = Upload {
            incoming,
            tap: None,
            progress: Rc::clone(&progress),
            gate: continued.map(|is_open| {
                let mut deadline = Deadline::default();
                deadline.set(CONTINUE);
                Gate { is_open, deadline }
            }),
        };
        (Self::Client(Box::new(upload)), Some(progress))
    }

    /// Makes the body of a request that the hop has read.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        match bytes.is_empty() {
            true => Self::Empty,
            false => Self::Whole(bytes),
        }
    }

    /// Copies a body that doesn't come from a client.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Whole(bytes) => Self::Whole(bytes.clone()),
            Self::Empty | Self::Client(_) => Self::Empty,
        }
    }

    /// Shows the body to `tap`, if there is one.
    pub(crate) fn set_tap(&mut self, mut tap: UploadTap) {
        match self {
            Self::Client(upload) => upload.tap = Some(tap),
            Self::Empty => tap(None),
            Self::Whole(bytes) => {
                tap(Some(bytes));
                tap(None);
            }
        }
    }
}

impl Upload {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            if !gate.is_open.load(Relaxed) {
                ready!(gate.deadline.poll_passed(context));
            }
            self.gate = None;
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.progress.at.set(Instant::now());
                if let (Some(tap), Some(data)) = (&mut self.tap, frame.data_ref()) {
                    tap(Some(data));
                }
            }
            Some(Err(_)) => self.progress.has_failed.set(true),
            None => self.progress.is_whole.set(true),
        }
        if self.incoming.is_end_stream() {
            self.progress.is_whole.set(true);
        }
        if self.progress.is_whole.get()
            && let Some(mut tap) = self.tap.take()
        {
            tap(None);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Client(upload) => upload.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Client(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client(upload) => upload.incoming.size_hint(),
        }
    }
}

/// The body of an answer on its way to the client.
#[derive(Debug)]
pub struct ProxyBody {
    source: Source,
    /// The request, which is over when the body is.
    busy: Option<Busy>,
    entry: Option<Box<Entry>>,
}

enum Source {
    /// Bytes of our own.
    Own(Bytes),
    Upstream(Download),
    /// A body that a hop makes or looks at.
    Hop(HopBody),
}

/// A body that a hop makes.
pub type HopBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>;

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own",
            Self::Upstream(_) => "Upstream",
            Self::Hop(_) => "Hop",
        })
    }
}

/// A body that an upstream sends.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) incoming: Incoming,
    /// The connection that it comes from, until its end.
    pub(crate) lease: Option<Lease>,
    pub(crate) idle: Duration,
    /// When it must be whole.
    pub(crate) until: Instant,
    pub(crate) counters: Arc<ProxyCounters>,
}

/// The reason for which an answer is cut off.
#[derive(Debug, thiserror::Error)]
#[error("the upstream sent nothing more in time")]
struct Late;

impl ProxyBody {
    /// Makes a body that is sent at once.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        Self {
            source: Source::Own(bytes.into()),
            busy: None,
            entry: None,
        }
    }

    /// Makes a body that a hop makes piece by piece.
    pub fn hop(body: HopBody) -> Self {
        Self {
            source: Source::Hop(body),
            busy: None,
            entry: None,
        }
    }

    pub(crate) fn upstream(mut download: Download) -> Self {
        download.release_at_end();
        Self {
            source: Source::Upstream(download),
            busy: None,
            entry: None,
        }
    }

    pub(crate) fn with_busy(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }

    /// Has the access log note the answer at its end.
    pub(crate) fn logged(mut self, entry: Box<Entry>) -> Self {
        self.entry = Some(entry);
        self
    }

    fn cut(&self) {
        if let Some(busy) = &self.busy {
            busy.cut();
        }
    }
}

impl Download {
    /// Gives the connection back if nothing more comes.
    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.counters.answers_passed.add(1);
            lease.release();
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Only driving the connection makes more of the body appear, so no wake-up is needed.
        let unwoken = &mut Context::from_waker(Waker::noop());
        let mut frame = Pin::new(&mut self.incoming).poll_frame(unwoken);
        if let (Poll::Pending, Some(lease)) = (&frame, &mut self.lease) {
            lease.connection.drive(context);
            frame = Pin::new(&mut self.incoming).poll_frame(unwoken);
        }
        match &frame {
            Poll::Ready(Some(Ok(_))) => {
                self.release_at_end();
                if let Some(lease) = &mut self.lease {
                    let deadline = &mut lease.connection.deadline;
                    deadline.set_at(self.until.min(Instant::now() + self.idle));
                }
            }
            Poll::Ready(None) => self.release(),
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending => {
                if let Some(lease) = &mut self.lease {
                    ready!(lease.connection.deadline.poll_passed(context));
                    return Poll::Ready(Some(Err(Late.into())));
                }
            }
        }
        frame.map_err(Into::into)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.counters.answers_cut.add(1);
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.source {
            Source::Own(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Source::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Upstream(download) => download.poll_frame(context),
            Source::Hop(body) => body.as_mut().poll_frame(context),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(entry), Some(data)) = (&mut self.entry, frame.data_ref()) {
                    entry.body_bytes += data.len() as u64;
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!("an answer was cut off: {error}");
                self.cut();
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Upstream(download) => download.incoming.is_end_stream(),
            Source::Hop(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(download) => download.incoming.size_hint(),
            Source::Hop(body) => body.size_hint(),
        }
    }
}

impl Drop for ProxyBody {
    fn drop(&mut self) {
        if let Some(mut entry) = self.entry.take() {
            entry.is_whole = match &self.source {
                Source::Own(_) => true,
                Source::Upstream(download) => download.lease.is_none(),
                Source::Hop(body) => body.is_end_stream(),
            };
            entry.log();
        }
    }
}
