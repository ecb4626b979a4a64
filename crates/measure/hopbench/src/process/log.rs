//! A child's log: the first and the last lines in memory, the first megabyte in a file.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread,
};

use anyhow::Context;

#[derive(Debug)]
pub(super) struct Log {
    head: Vec<String>,
    tail: VecDeque<String>,
    file: Option<File>,
    /// Bytes by which the file may still grow.
    room: usize,
}

/// Number of lines that are kept for a message.
const TAIL_LINES: usize = 12;

/// Number of lines that are kept of the beginning: programs print their versions there.
const HEAD_LINES: usize = 40;

/// Longest line that is kept whole, in bytes.
const LINE_BYTES_MAX: usize = 2_000;

/// Maximum length of the file, in bytes: a program that floods its log must not fill the disk.
const FILE_BYTES_MAX: usize = 1 << 20;

impl Log {
    pub(super) fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("could not create '{}'", path.display()))
        };
        let file = file.map(create).transpose()?;
        Ok(Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            file,
            room: FILE_BYTES_MAX,
        })
    }

    /// Returns the first lines.
    pub(super) fn head(&self) -> impl Iterator<Item = &str> {
        self.head.iter().map(String::as_str)
    }

    pub(super) fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    fn add(&mut self, line: &[u8]) {
        let length = line.len().min(self.room);
        if let Some(file) = &mut self.file {
            self.room -= length;
            // A full disk is noticed where results are written.
            let _ = file.write_all(&line[..length]);
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let text = text.trim_end();
        if !text.is_empty() {
            if self.head.len() < HEAD_LINES {
                self.head.push(text.to_owned());
            }
            self.tail.push_back(text.to_owned());
        }
        if self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
    }
}

/// Reads a pipe to its end on its own thread, then drops `reading`.
pub(super) fn drain(
    pipe: impl Read + Send + 'static,
    log: Arc<Mutex<Log>>,
    reading: Sender<()>,
) -> io::Result<()> {
    let read = move || {
        let _reading = reading;
        let mut reader = BufReader::new(pipe);
        while let Ok(line) = read_line(&mut reader) {
            if line.is_empty() {
                return;
            }
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(&line);
        }
    };
    thread::Builder::new().spawn(read).map(drop)
}

/// Reads the next line with its end, or a piece of a line that is far too long.
fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(64 * 1024).read_until(b'\n', &mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_lines_are_kept() {
        let log = Arc::new(Mutex::new(Log::new(None).expect("no file")));
        let text: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        let (reading, read) = std::sync::mpsc::channel();
        drain(io::Cursor::new(text), log.clone(), reading).expect("a thread");
        read.recv().expect_err("nothing is sent, only dropped");
        let log = log.lock().expect("no panic");
        let tail: Vec<&str> = log.tail().collect();
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail.last(), Some(&"line 99"));
        let head: Vec<&str> = log.head().collect();
        assert_eq!(head.len(), HEAD_LINES);
        assert_eq!(head.first(), Some(&"line 0"));
    }
}
