//! Readers of a log: of a file that grows, of a pipe, or of nothing at all.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, PipeReader, Read as _},
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::process::wait_until;

/// How a log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// A file, which is followed as it grows.
    File,
    /// A pipe, of which little is read at a time.
    SlowPipe,
    /// A pipe that nobody reads until the load is over.
    UnreadPipe,
}

/// A reader on a thread of its own.
pub(super) struct Tail {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    /// The load is over: everything may be read as fast as it comes.
    is_free: AtomicBool,
    lines: AtomicU64,
    /// Lines that came, while some shall be lost.
    came: AtomicU64,
    /// When the line of each marked request was read.
    marked: Mutex<HashMap<u64, Instant>>,
    first: Mutex<Option<Instant>>,
}

/// Bytes that are read of a slow pipe at a time, and the pause between two times: 2 MB/s at most.
const SLOW_BYTES: usize = 4_096;
const SLOW_PAUSE: Duration = Duration::from_millis(2);

/// Pause at the end of a file that grows.
const FOLLOW_PAUSE: Duration = Duration::from_millis(1);

/// Text of a line that belongs to a request.
const REQUEST: &[u8] = b"/small";

/// Text before the number of a marked request.
pub(super) const MARK: &str = "mark=";

impl Sink {
    pub(super) const ALL: [Self; 3] = [Self::File, Self::SlowPipe, Self::UnreadPipe];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::SlowPipe => "slow pipe",
            Self::UnreadPipe => "unread pipe",
        }
    }

    /// Opens the sink; returns the end for the log, and the reader. `loses` has it lose lines.
    pub(super) fn open(self, file: &Path, loses: bool) -> io::Result<(OwnedFd, Tail)> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let (end, thread) = match self {
            Self::File => {
                let end = File::create(file)?;
                let reading = File::open(file)?;
                let thread = thread::spawn(move || theirs.follow(reading, loses));
                (OwnedFd::from(end), thread)
            }
            Self::SlowPipe | Self::UnreadPipe => {
                let (reading, end) = io::pipe()?;
                let is_read = self == Self::SlowPipe;
                let thread = thread::spawn(move || theirs.read(reading, is_read, loses));
                (OwnedFd::from(end), thread)
            }
        };
        let tail = Tail {
            shared,
            thread: Some(thread),
        };
        Ok((end, tail))
    }
}

impl Tail {
    /// Reads everything as fast as it comes from now on.
    pub(super) fn free(&self) {
        self.shared.is_free.store(true, Relaxed);
    }

    /// Returns how many lines of requests were read so far.
    pub(super) fn lines(&self) -> u64 {
        self.shared.lines.load(Relaxed)
    }

    /// Returns when the first line was read.
    pub(super) fn first(&self) -> Option<Instant> {
        *lock(&self.shared.first)
    }

    /// Returns when the lines of marked requests were read.
    pub(super) fn marked(&self) -> HashMap<u64, Instant> {
        lock(&self.shared.marked).clone()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.shared.is_free.store(true, Relaxed);
        self.shared.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // A pipe ends with its writer, which is gone by now; what failed was counted as lost.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn follow(&self, mut file: File, loses: bool) -> io::Result<()> {
        let (mut buffer, mut begun) = (vec![0; 256 * 1024], Vec::new());
        loop {
            let count = file.read(&mut buffer)?;
            if count > 0 {
                self.take(&buffer[..count], &mut begun, loses);
            } else if self.is_over.load(Relaxed) {
                return Ok(());
            } else {
                wait_until(Instant::now() + FOLLOW_PAUSE);
            }
        }
    }

    fn read(&self, mut pipe: PipeReader, is_read: bool, loses: bool) -> io::Result<()> {
        let (mut buffer, mut begun) = (vec![0; 64 * 1024], Vec::new());
        loop {
            let is_free = self.is_free.load(Relaxed);
            if !is_free {
                wait_until(Instant::now() + SLOW_PAUSE);
                if !is_read {
                    continue;
                }
            }
            let most = if is_free { buffer.len() } else { SLOW_BYTES };
            let count = pipe.read(&mut buffer[..most])?;
            if count == 0 {
                return Ok(());
            }
            self.take(&buffer[..count], &mut begun, loses);
        }
    }

    /// Counts the lines of a piece. A line that is only begun is kept for the next piece.
    fn take(&self, piece: &[u8], begun: &mut Vec<u8>, loses: bool) {
        let now = Instant::now();
        begun.extend_from_slice(piece);
        let Some(end) = begun.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        for line in begun[..end].split(|byte| *byte == b'\n') {
            if !contains(line, REQUEST) {
                continue;
            }
            if loses && self.came.fetch_add(1, Relaxed).is_multiple_of(50) {
                continue;
            }
            self.lines.fetch_add(1, Relaxed);
            lock(&self.first).get_or_insert(now);
            if let Some(mark) = mark(line) {
                lock(&self.marked).insert(mark, now);
            }
        }
        begun.drain(..=end);
    }
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|window| window == text)
}

/// Returns the number of a marked request.
fn mark(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let (_, rest) = line.split_once(MARK)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_however_they_are_cut_and_notes_of_the_log_are_not() {
        let shared = Shared::default();
        let mut begun = Vec::new();
        let log = "GET /small 200\nnote: 3 lines were dropped\nGET /small?mark=17 200\nGET /sm";
        for byte in log.as_bytes().chunks(3) {
            shared.take(byte, &mut begun, false);
        }
        assert_eq!(shared.lines.load(Relaxed), 2);
        assert_eq!(lock(&shared.marked).keys().collect::<Vec<_>>(), [&17]);
        assert!(lock(&shared.first).is_some());
    }
}
