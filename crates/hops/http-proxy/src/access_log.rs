//! The access log: a line per request, written by a thread of its own.
//!
//! A worker only puts a record into a bounded queue. If the queue is full, [`WhenFull`] decides
//! whether the worker waits or the line is dropped, counted, and marked in the log.

use std::{
    io::{self, BufWriter, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use hyper::{
    Method, Response, StatusCode, Uri,
    header::{HOST, HeaderValue, USER_AGENT},
};
use jiff::{Timestamp, Unit};
use serde_json::json;

use crate::{body::ProxyBody, counters::ProxyCounters, plain::PlainRequest, serve::Call};

/// Writes the lines of all routes.
#[derive(Debug)]
pub struct AccessLog {
    /// Boxed, since the queue has room for all of them from the start.
    queue: SyncSender<Box<Record>>,
    when_full: WhenFull,
    dropped: Arc<AtomicU64>,
    counters: Arc<ProxyCounters>,
}

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people, with the duration in brackets at the end.
    #[default]
    Text,
    /// An object per line.
    Json,
}

/// The fate of a line for which the queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted, and a line in the log says so.
    #[default]
    Drop,
    /// The worker waits, and all its connections with it.
    Block,
}

/// How much a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The request line, the status, the size and the duration.
    Basic,
    /// Also the host and the user agent.
    Verbose,
}

/// A line as a worker makes it.
#[derive(Debug)]
struct Record {
    at: Timestamp,
    route: Arc<str>,
    client: SocketAddr,
    method: Method,
    uri: Uri,
    status: StatusCode,
    body_bytes: u64,
    is_whole: bool,
    took: Duration,
    extra: Option<Extra>,
}

/// The fields that [`Detail::Verbose`] adds.
#[derive(Debug)]
struct Extra {
    host: String,
    agent: String,
}

/// A request that is under way. Its line is written once its answer is over.
#[derive(Debug)]
pub struct Entry {
    log: Arc<AccessLog>,
    route: Arc<str>,
    client: SocketAddr,
    method: Method,
    uri: Uri,
    status: StatusCode,
    extra: Option<Extra>,
    begin: Instant,
    pub(crate) body_bytes: u64,
    pub(crate) is_whole: bool,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer {
    ended: Receiver<()>,
}

/// Most lines that wait to be written.
const QUEUE_LINES: usize = 16 * 1024;

impl AccessLog {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(
        out: impl Write + Send + 'static,
        format: Format,
        when_full: WhenFull,
        counters: &Arc<ProxyCounters>,
    ) -> anyhow::Result<(Arc<Self>, Writer)> {
        let (queue, records) = sync_channel(QUEUE_LINES);
        let (end, ended) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let own_dropped = Arc::clone(&dropped);
        let work = move || {
            if let Err(error) = write_all(out, format, &records, &own_dropped) {
                tracing::error!("could not write the access log: {error}");
                // Workers must never wait for a log that nobody writes.
                while records.recv().is_ok() {}
            }
            end.send(()).ok();
        };
        let named = thread::Builder::new().name("access-log".to_owned());
        named.spawn(work).context("could not start a thread")?;
        let log = Self {
            queue,
            when_full,
            dropped,
            counters: Arc::clone(counters),
        };
        Ok((Arc::new(log), Writer { ended }))
    }

    /// Begins the line of a request to a route.
    pub fn begin(self: &Arc<Self>, route: &Arc<str>, detail: Detail, call: &Call) -> Entry {
        let fields = call.request.headers();
        let asked = (call.request.method().clone(), call.request.uri().clone());
        let field = |name| fields.get(name).map_or(&[][..], HeaderValue::as_bytes);
        let extra = detail == Detail::Verbose;
        let extra = extra.then(|| Extra::of(field(HOST), field(USER_AGENT)));
        self.entry(route, call.client.address, asked, extra)
    }

    /// Begins the line of a plain request to a route.
    pub fn begin_plain(
        self: &Arc<Self>,
        route: &Arc<str>,
        detail: Detail,
        request: &PlainRequest<'_>,
    ) -> Entry {
        let agent = || request.field(USER_AGENT.as_str()).unwrap_or_default();
        let extra = detail == Detail::Verbose;
        let extra = extra.then(|| Extra::of(request.host.as_bytes(), agent()));
        let asked = (request.to_method(), request.to_uri());
        self.entry(route, request.client.address, asked, extra)
    }

    fn entry(
        self: &Arc<Self>,
        route: &Arc<str>,
        client: SocketAddr,
        (method, uri): (Method, Uri),
        extra: Option<Extra>,
    ) -> Entry {
        Entry {
            log: Arc::clone(self),
            route: Arc::clone(route),
            client,
            method,
            uri,
            // Until there is another one.
            status: StatusCode::SERVICE_UNAVAILABLE,
            extra,
            begin: Instant::now(),
            body_bytes: 0,
            is_whole: false,
        }
    }

    fn put(&self, record: Box<Record>) {
        match self.when_full {
            // The writer ends only with the process.
            WhenFull::Block => drop(self.queue.send(record)),
            WhenFull::Drop => {
                if self.queue.try_send(record).is_err() {
                    self.dropped.fetch_add(1, Relaxed);
                    self.counters.log_lines_dropped.add(1);
                }
            }
        }
    }
}

impl Extra {
    fn of(host: &[u8], agent: &[u8]) -> Self {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        Self {
            host: text(host),
            agent: text(agent),
        }
    }
}

impl Writer {
    /// Waits until every line is written, at most for `limit`. Returns whether that is so.
    pub fn finish(self, limit: Duration) -> bool {
        self.ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
    }
}

impl Entry {
    /// Has the line written once the answer is over.
    pub fn answered(mut self, response: Response<ProxyBody>) -> Response<ProxyBody> {
        self.status = response.status();
        response.map(|body| body.logged(Box::new(self)))
    }

    /// Notes the status of the answer.
    pub(crate) fn answered_with(&mut self, status: u16) {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    /// Puts the line into the queue.
    pub(crate) fn log(self) {
        let record = Record {
            at: Timestamp::now(),
            route: self.route,
            client: self.client,
            method: self.method,
            uri: self.uri,
            status: self.status,
            body_bytes: self.body_bytes,
            is_whole: self.is_whole,
            took: self.begin.elapsed(),
            extra: self.extra,
        };
        self.log.put(Box::new(record));
    }
}

fn write_all(
    out: impl Write,
    format: Format,
    records: &Receiver<Box<Record>>,
    dropped: &AtomicU64,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    loop {
        let record = match records.try_recv() {
            Ok(record) => record,
            Err(TryRecvError::Disconnected) => return out.flush(),
            Err(TryRecvError::Empty) => {
                out.flush()?;
                match records.recv() {
                    Ok(record) => record,
                    Err(_) => return out.flush(),
                }
            }
        };
        let lost = dropped.swap(0, Relaxed);
        if lost > 0 {
            match format {
                Format::Text => writeln!(out, "{} lines dropped: {lost}", Timestamp::now())?,
                Format::Json => writeln!(out, "{}", json!({ "lines_dropped": lost }))?,
            }
        }
        match format {
            Format::Text => record.write_text(&mut out)?,
            Format::Json => writeln!(out, "{}", record.to_json())?,
        }
    }
}

impl Record {
    fn is_good(&self) -> bool {
        self.is_whole && !self.status.is_client_error() && !self.status.is_server_error()
    }

    fn at(&self) -> Timestamp {
        self.at.round(Unit::Millisecond).unwrap_or(self.at)
    }

    fn target(&self) -> &str {
        self.uri
            .path_and_query()
            .map_or("*", |target| target.as_str())
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let mark = if self.is_good() { "✅" } else { "❌" };
        write!(
            out,
            "{} {mark} {} {} \"{} {}\" {} {} bytes",
            self.at(),
            self.route,
            self.client.ip(),
            self.method,
            self.target().escape_debug(),
            self.status.as_u16(),
            self.body_bytes,
        )?;
        if !self.is_whole {
            out.write_all(b" cut")?;
        }
        if let Some(Extra { host, agent }) = &self.extra {
            write!(out, " {host:?} {agent:?}")?;
        }
        writeln!(out, " ({:.2}ms)", self.took.as_secs_f64() * 1e3)
    }

    fn to_json(&self) -> serde_json::Value {
        let mut object = json!({
            "at": self.at().to_string(),
            "route": &*self.route,
            "client": self.client.ip(),
            "method": self.method.as_str(),
            "target": self.target(),
            "status": self.status.as_u16(),
            "body_bytes": self.body_bytes,
            "whole": self.is_whole,
            "took_ms": self.took.as_secs_f64() * 1e3,
        });
        if let Some(Extra { host, agent }) = &self.extra {
            object["host"] = host.as_str().into();
            object["user_agent"] = agent.as_str().into();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A place to write to, which can be closed to writers.
    #[derive(Clone, Default)]
    struct Out(Arc<Pipe>);

    #[derive(Default)]
    struct Pipe {
        /// Whether writers wait, and what they have written.
        state: Mutex<(bool, Vec<u8>)>,
        changed: Condvar,
    }

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let Pipe { state, changed } = &*self.0;
            let state = state.lock().expect("not poisoned");
            let mut state = changed
                .wait_while(state, |(closed, _)| *closed)
                .expect("not poisoned");
            state.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Out {
        fn set_closed(&self, closed: bool) {
            self.0.state.lock().expect("not poisoned").0 = closed;
            self.0.changed.notify_all();
        }

        fn text(&self) -> String {
            let state = self.0.state.lock().expect("not poisoned");
            String::from_utf8(state.1.clone()).expect("text")
        }
    }

    fn entry(log: &Arc<AccessLog>, status: u16, is_whole: bool) -> Entry {
        Entry {
            log: Arc::clone(log),
            route: "web".into(),
            client: "10.0.0.1:5".parse().expect("an address"),
            method: Method::GET,
            uri: "/a?b=c".parse().expect("a target"),
            status: StatusCode::from_u16(status).expect("a status"),
            extra: (status == 404).then(|| Extra {
                host: "h".to_owned(),
                agent: "a\"\n".to_owned(),
            }),
            begin: Instant::now(),
            body_bytes: 12,
            is_whole,
        }
    }

    #[test]
    fn lines_have_one_mark_and_end_with_the_duration() {
        let counters = Arc::default();
        let out = Out::default();
        let (log, writer) =
            AccessLog::start(out.clone(), Format::Text, WhenFull::Block, &counters).expect("began");
        entry(&log, 200, true).log();
        entry(&log, 404, true).log();
        entry(&log, 200, false).log();
        drop(log);
        assert!(writer.finish(Duration::from_secs(60)));
        let text = out.text();
        let lines: Vec<_> = text.lines().collect();
        let [good, missing, cut] = lines.as_slice() else {
            panic!("{text}");
        };
        assert!(
            good.contains("✅ web 10.0.0.1 \"GET /a?b=c\" 200 12 bytes ("),
            "{good}"
        );
        assert!(
            missing.contains("❌") && missing.contains(r#""h" "a\"\n""#),
            "{missing}"
        );
        assert!(cut.contains("❌") && cut.contains(" cut ("), "{cut}");
        assert!(lines.iter().all(|line| line.ends_with("ms)")), "{text}");
    }

    #[test]
    fn lines_beyond_the_queue_are_counted_and_marked() {
        let counters: Arc<ProxyCounters> = Arc::default();
        let out = Out::default();
        out.set_closed(true);
        let (log, writer) =
            AccessLog::start(out.clone(), Format::Json, WhenFull::Drop, &counters).expect("began");
        // The writer stops at the first flush, with what it has taken by then.
        let lines = 3 * QUEUE_LINES;
        for _ in 0..lines {
            entry(&log, 200, true).log();
        }
        let dropped = counters.log_lines_dropped.get();
        assert!(dropped > 0);
        out.set_closed(false);
        entry(&log, 200, true).log();
        drop(log);
        assert!(writer.finish(Duration::from_secs(60)));
        let text = out.text();
        let values = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let values: Vec<serde_json::Value> = values.collect();
        let of = |name| values.iter().filter_map(move |line| line[name].as_u64());
        let marked: u64 = of("lines_dropped").sum();
        let late = counters.log_lines_dropped.get();
        assert_eq!(marked, late);
        assert_eq!(of("status").count() as u64 + marked, lines as u64 + 1);
    }
}
