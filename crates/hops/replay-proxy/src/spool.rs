//! Bodies on their way into the store: in memory while they are short, then in a file.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::{
    store::{BodyPlace, Files, files::Unfinished, gathering::NewFile, known::Tagger, rows::Digest},
    stored::{Piece, Timing},
};

/// A body that comes in pieces.
#[derive(Debug)]
pub(crate) struct Spool {
    files: Files,
    pieces: Vec<Bytes>,
    /// Reads the pieces of a body that is too long for a row, while they are in the processor's
    /// caches.
    hasher: Option<Hasher>,
    /// Takes the place of `pieces` once they are too many.
    file: Option<Unfinished>,
    length: u64,
    begin: Instant,
    timing: Option<Vec<Piece>>,
    failed: Option<io::Error>,
}

/// Reads a body that is too long for a row.
enum Hasher {
    /// While it is in memory: perhaps its digest is known.
    Tag(Box<Tagger>),
    /// Once it is in a file.
    Digest(Box<blake3::Hasher>),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// A body that is complete.
#[derive(Debug)]
pub(crate) struct Spooled {
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) timing: Option<Timing>,
    pub(crate) content: Content,
}

/// Where a complete body is.
#[derive(Debug)]
pub(crate) enum Content {
    Memory(Bytes),
    Long(NewFile),
}

/// Longest body that is stored in the database. SQLite reads such rows faster than a file is
/// opened (its own "35% faster than the filesystem" has the figures).
pub(crate) const ROW_BYTES_MAX: u64 = 32 * 1024;

/// Most bytes of a body in memory. Most bodies are shorter, and many are in the store already,
/// which their digest shows before anything is written.
const MEMORY_BYTES_MAX: u64 = 1024 * 1024;

/// Most pieces whose times are kept: an hour of an event stream with ten events per second.
const PIECES_MAX: usize = 36_000;

impl Spool {
    /// Begins a body.
    pub(crate) fn new(files: &Files) -> Self {
        Self {
            files: files.clone(),
            pieces: Vec::new(),
            hasher: None,
            file: None,
            length: 0,
            begin: Instant::now(),
            timing: None,
            failed: None,
        }
    }

    /// Keeps the times of the pieces.
    pub(crate) fn with_timing(mut self) -> Self {
        self.timing = Some(Vec::new());
        self
    }

    /// Returns the bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the file that the body is in by now, for reading it; `None` while it is in memory.
    pub(crate) fn file(&self) -> Option<io::Result<std::fs::File>> {
        self.file.as_ref().map(Unfinished::reader)
    }

    /// Adds a piece. Failures show at the end: the client gets its answer all the same.
    pub(crate) fn push(&mut self, piece: &Bytes) {
        self.length += piece.len() as u64;
        if let Some(timing) = self.timing.as_mut().filter(|it| it.len() < PIECES_MAX) {
            let at_us = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            timing.push(Piece {
                at_us,
                bytes: piece.len() as u64,
            });
        }
        if self.failed.is_some() {
            return;
        }
        if self.length > MEMORY_BYTES_MAX {
            let hasher = match self.hasher.take() {
                Some(Hasher::Digest(hasher)) => hasher,
                _ => Box::new(hashed(&self.pieces)),
            };
            let hasher = self.hasher.insert(Hasher::Digest(hasher));
            hasher.update(piece);
        } else if self.length > ROW_BYTES_MAX {
            let (files, earlier) = (&self.files, &self.pieces);
            let hasher = self.hasher.get_or_insert_with(|| {
                let mut hasher = Hasher::Tag(Box::new(files.tagger()));
                earlier.iter().for_each(|piece| hasher.update(piece));
                hasher
            });
            hasher.update(piece);
        }
        if self.file.is_none() && self.length <= MEMORY_BYTES_MAX {
            return self.pieces.push(piece.clone());
        }
        if let Err(error) = self.write(piece) {
            self.failed = Some(error);
            self.file = None;
            self.pieces.clear();
        }
    }

    fn write(&mut self, piece: &Bytes) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(self.files.begin()?),
        };
        for piece in self.pieces.drain(..).as_slice().iter().chain([piece]) {
            file.write(piece)?;
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// If the disk is full, or fails.
    pub(crate) fn finish(self) -> io::Result<Spooled> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let timing = self.timing.filter(|pieces| {
            pieces.len() > 1 && pieces.iter().map(|piece| piece.bytes).sum::<u64>() == self.length
        });
        let (digest, content) = match self.hasher {
            Some(hasher) => {
                let digest = match hasher {
                    Hasher::Digest(hasher) => *hasher.finalize().as_bytes(),
                    Hasher::Tag(tagger) => self
                        .files
                        .digest_of(*tagger, || *hashed(&self.pieces).finalize().as_bytes()),
                };
                let file = match self.file {
                    Some(file) => NewFile::Written(file),
                    None => NewFile::Memory(self.pieces),
                };
                (digest, Content::Long(file))
            }
            None => {
                let bytes = joined(self.pieces);
                (*blake3::hash(&bytes).as_bytes(), Content::Memory(bytes))
            }
        };
        Ok(Spooled {
            digest,
            length: self.length,
            timing: timing.map(Timing),
            content,
        })
    }
}

impl Spooled {
    /// Makes a body that is complete.
    pub(crate) fn whole(files: &Files, bytes: Bytes) -> io::Result<Self> {
        let mut spool = Spool::new(files);
        if !bytes.is_empty() {
            spool.push(&bytes);
        }
        spool.finish()
    }

    /// Returns the place of the body in a row, and the file that it needs.
    pub(crate) fn placed(self, files: &mut Vec<(Digest, NewFile)>) -> BodyPlace {
        match self.content {
            Content::Memory(bytes) => BodyPlace::Row(bytes),
            Content::Long(file) => {
                files.push((self.digest, file));
                BodyPlace::File
            }
        }
    }

    /// Returns the bytes of a body that is in memory.
    pub(crate) fn bytes(&self) -> Option<Bytes> {
        match &self.content {
            Content::Memory(bytes) => Some(bytes.clone()),
            Content::Long(NewFile::Memory(pieces)) => Some(joined(pieces.clone())),
            Content::Long(NewFile::Written(_)) => None,
        }
    }
}

impl Hasher {
    fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Tag(tagger) => tagger.update(piece),
            Self::Digest(hasher) => {
                hasher.update(piece);
            }
        }
    }
}

fn hashed(pieces: &[Bytes]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    hasher
}

/// Joins pieces, without a copy if there is one alone that wastes little memory.
fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.as_mut_slice() {
        [] => Bytes::new(),
        // A piece may be part of a large buffer, which it would keep.
        [only] => Bytes::copy_from_slice(only),
        pieces => {
            let length = pieces.iter().map(Bytes::len).sum();
            let mut joined = BytesMut::with_capacity(length);
            pieces
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece));
            joined.freeze()
        }
    }
}
