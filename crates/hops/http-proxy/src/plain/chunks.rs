//! Finds the end of a body in chunks (RFC 9112, section 7.1).

use memchr::memchr;

/// Follows the chunks of one body, which are passed on as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    /// Bytes of lines that aren't data so far: of the chunk's size, or of all trailers.
    line_bytes: usize,
    data_bytes: u64,
    trailers: Vec<u8>,
}

/// Where in the body the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a chunk's size.
    #[default]
    Start,
    Size(u64),
    /// Behind a size and spaces, where an extension may begin.
    Space(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLine,
    /// At the start of a line behind the last chunk.
    Line,
    TrailerName,
    Trailer,
    TrailerEnd,
    LastEnd,
    End,
}

/// Bytes that are no chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its chunks are invalid")]
pub(crate) struct InvalidChunks;

/// Longest line with a chunk's size, and most bytes of trailers.
const LINES_BYTES_MAX: usize = 16 * 1024;

/// Largest size, so that another digit fits.
const SIZE_MAX: u64 = u64::MAX >> 4;

impl Chunks {
    /// Follows the next bytes, and shows the data among them. Returns how many belong to the body:
    /// fewer than all if it ends.
    pub(crate) fn follow(
        &mut self,
        bytes: &[u8],
        mut show: impl FnMut(&[u8]),
    ) -> Result<usize, InvalidChunks> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            if let State::Data(left) = self.state {
                let rest = bytes.len() - at;
                let here = usize::try_from(left).map_or(rest, |left| left.min(rest));
                show(&bytes[at..at + here]);
                at += here;
                self.line_bytes = 0;
                self.data_bytes += here as u64;
                self.state = match left - here as u64 {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                continue;
            }
            if self.state == State::Trailer {
                let here = memchr(b'\r', &bytes[at..]).unwrap_or(bytes.len() - at);
                if !bytes[at..at + here].iter().all(|&byte| is_in_values(byte)) {
                    return Err(InvalidChunks);
                }
                self.trailers.extend_from_slice(&bytes[at..at + here]);
                at += here;
                self.count(here)?;
                if at == bytes.len() {
                    break;
                }
            }
            let before = self.state;
            self.state = self.next(bytes[at])?;
            let is_in_trailers = matches!(
                self.state,
                State::TrailerName | State::Trailer | State::TrailerEnd
            );
            if is_in_trailers || before == State::TrailerEnd {
                self.trailers.push(bytes[at]);
            }
            self.count(1)?;
            at += 1;
        }
        Ok(at)
    }

    /// Returns whether the body is whole.
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::End
    }

    /// Returns the length of the data so far.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Returns the lines of the trailers so far, each with its end.
    pub(crate) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn count(&mut self, bytes: usize) -> Result<(), InvalidChunks> {
        self.line_bytes += bytes;
        match self.line_bytes {
            ..=LINES_BYTES_MAX => Ok(()),
            _ => Err(InvalidChunks),
        }
    }

    /// Returns the state behind a byte that isn't data.
    fn next(&self, byte: u8) -> Result<State, InvalidChunks> {
        let digit = (byte as char).to_digit(16).map(u64::from);
        Ok(match (self.state, byte) {
            (State::Start, _) => State::Size(digit.ok_or(InvalidChunks)?),
            (State::Size(size) | State::Space(size) | State::Extension(size), b'\r') => {
                State::SizeEnd(size)
            }
            (State::Size(size) | State::Space(size), b';') => State::Extension(size),
            (State::Size(size) | State::Space(size), b' ' | b'\t') => State::Space(size),
            (State::Size(size), _) => {
                let digit = digit.filter(|_| size <= SIZE_MAX);
                State::Size(size << 4 | digit.ok_or(InvalidChunks)?)
            }
            (State::Extension(size), _) if is_in_values(byte) => State::Extension(size),
            (State::SizeEnd(0), b'\n') => State::Line,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataEndLine,
            (State::DataEndLine, b'\n') => State::Start,
            (State::Line, b'\r') => State::LastEnd,
            (State::LastEnd, b'\n') => State::End,
            (State::TrailerName, b':') => State::Trailer,
            (State::Line | State::TrailerName, _) if is_in_names(byte) => State::TrailerName,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::Line,
            _ => return Err(InvalidChunks),
        })
    }
}

/// Returns whether a byte may be in the name of a field (RFC 9110, section 5.6.2).
fn is_in_names(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns whether a byte may be in the value of a field (RFC 9110, section 5.5).
fn is_in_values(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_in_pieces_of_any_length() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "0003;a=\"b\"\r\na\r\n\r\n1\r\n0\r\n000\r\n\r\n",
            "1 \t\r\na\r\n0 ;a\r\nX-Sum: 1\r\nx:\r\n\r\n",
            "fF\r\n",
        ] {
            let is_whole = body != "fF\r\n";
            let bytes = format!("{body}HTTP/1.1");
            for piece in 1..bytes.len() {
                let mut chunks = Chunks::default();
                let (mut used, mut shown) = (0, 0);
                for bytes in bytes.as_bytes().chunks(piece) {
                    let followed = chunks.follow(bytes, |data| shown += data.len() as u64);
                    used += followed.expect("valid");
                }
                assert_eq!(chunks.data_bytes(), shown, "{body:?}");
                let trailers: &[u8] = match body.contains("X-Sum") {
                    true => b"X-Sum: 1\r\nx:\r\n",
                    false => b"",
                };
                assert_eq!(chunks.trailers(), trailers, "{body:?}");
                assert_eq!(chunks.has_ended(), is_whole, "{body:?}");
                let expected = if is_whole { body.len() } else { bytes.len() };
                assert_eq!(used, expected, "{body:?}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            " 1\r\n",
            "1\na",
            "1\r\nab\r\n",
            "1\r\na\n0",
            "fffffffffffffffff\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\r\r\n",
            "0\r\n\r0",
            "1;\0\r\n",
            "0 9\r\n\r\n",
            "1\t1\r\na",
            "0\r\nA\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA b: c\r\n\r\n",
            "0\r\nA: \u{7f}\r\n\r\n",
        ] {
            let followed = Chunks::default().follow(body.as_bytes(), |_| {});
            assert_eq!(followed, Err(InvalidChunks), "{body:?}");
        }
        let long = format!("1;{}", "a".repeat(LINES_BYTES_MAX));
        assert!(Chunks::default().follow(long.as_bytes(), |_| {}).is_err());
        let long = format!("0\r\n{}", "a: b\r\n".repeat(LINES_BYTES_MAX / 5));
        assert!(Chunks::default().follow(long.as_bytes(), |_| {}).is_err());
    }
}
