//! Finds what is ambiguous in the framing of HTTP/1.1 requests.
//!
//! hyper parses requests. Some that it takes, other servers read differently, so that one of them
//! sees a request where another sees a body ("request smuggling"). hyper doesn't show that it saw
//! them: it drops `Content-Length` beside `Transfer-Encoding` and takes a line feed alone for the
//! end of a line. [`Framing`] follows the bytes of a connection from message to message and reports
//! byte at which such a request can no longer be right (RFC 9112, sections 2.2, 6.1 and 11.2).

use memchr::memchr;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    head: Head,
    /// A line whose end has not come yet.
    line: Vec<u8>,
}

/// Where in the stream the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a request.
    #[default]
    Between,
    Head,
    /// In a body, with so many bytes to come.
    Body(u64),
    /// At the start of a chunk, whose size has this value so far.
    ChunkSize(u64),
    /// In the rest of the line with a chunk's size.
    ChunkLine(u64),
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// After what isn't HTTP, or what hyper refuses without our help.
    Unknown,
}

/// The fields of a head that say where its message ends.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// The value of `Content-Length`.
    length: Option<u64>,
    is_chunked: bool,
    is_upgrade: bool,
    /// Whether a length can't be understood. hyper refuses these.
    is_invalid: bool,
}

/// Part of a request that has come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The end of a request, or nothing yet.
    End,
    /// Some of a head.
    Head,
    /// Some of a body, or of what isn't HTTP.
    Body,
}

/// Longest line that is kept while its end hasn't come. hyper refuses heads that are longer.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Longest chunk size, in digits. hyper refuses more.
const SIZE_MAX: u64 = u64::MAX >> 4;

impl Framing {
    /// Follows the next bytes of the connection.
    ///
    /// # Errors
    /// The position in `bytes` of the first byte that makes the request ambiguous. After an error,
    /// nothing more is followed.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(used) => at += used,
                Err(offset) => {
                    self.state = State::Unknown;
                    return Err(at + offset);
                }
            }
        }
        Ok(())
    }

    /// Returns which part of a request has come last.
    pub fn part(&self) -> Part {
        match self.state {
            State::Between => Part::End,
            State::Head => Part::Head,
            _ => Part::Body,
        }
    }

    /// Follows some of `bytes`, which aren't empty. Returns how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        match self.state {
            State::Between => {
                self.head = Head::default();
                // Servers skip empty lines before a request (RFC 9112, section 2.2).
                if bytes[0] == b'\r' || bytes[0] == b'\n' {
                    return Ok(1);
                }
                self.state = State::Head;
                Ok(0)
            }
            State::Head | State::Trailers => self.line(bytes),
            State::Body(left) => Ok(self.skip(left, bytes, State::Body, State::Between)),
            State::ChunkData(left) => Ok(self.skip(left, bytes, State::ChunkData, State::ChunkEnd)),
            State::ChunkSize(size) => {
                self.state = match (bytes[0] as char).to_digit(16) {
                    Some(digit) if size <= SIZE_MAX => {
                        State::ChunkSize(size << 4 | u64::from(digit))
                    }
                    Some(_) => State::Unknown,
                    None => State::ChunkLine(size),
                };
                Ok(usize::from(self.state != State::ChunkLine(size)))
            }
            State::ChunkLine(size) => {
                // A line feed that isn't the end of a line is hyper's to refuse.
                let end = memchr(b'\n', bytes);
                if end.is_some() {
                    self.state = match size {
                        0 => State::Trailers,
                        _ => State::ChunkData(size),
                    };
                }
                Ok(end.map_or(bytes.len(), |end| end + 1))
            }
            State::ChunkEnd => {
                if bytes[0] == b'\n' {
                    self.state = State::ChunkSize(0);
                }
                Ok(1)
            }
            State::Unknown => Ok(bytes.len()),
        }
    }

    /// Skips what there is of `left` bytes.
    fn skip(&mut self, left: u64, bytes: &[u8], more: fn(u64) -> State, then: State) -> usize {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.state = match left - here as u64 {
            0 => then,
            left => more(left),
        };
        here
    }

    /// Follows one line of a head, or what has come of it.
    fn line(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        let Some(end) = memchr(b'\n', bytes) else {
            if self.line.len() + bytes.len() > LINE_BYTES_MAX {
                self.state = State::Unknown;
            } else {
                self.line.extend_from_slice(bytes);
            }
            return Ok(bytes.len());
        };
        let whole: &[u8] = if self.line.is_empty() {
            &bytes[..end]
        } else {
            self.line.extend_from_slice(&bytes[..end]);
            &self.line
        };
        let [line @ .., b'\r'] = whole else {
            return Err(end);
        };
        if line.is_empty() {
            self.state = match self.state {
                State::Trailers => State::Between,
                _ => self.head.body().ok_or(end)?,
            };
        } else if self.state == State::Head {
            self.head.note(line);
        }
        // Its memory is rarely needed again.
        self.line = Vec::new();
        Ok(end + 1)
    }
}

impl Head {
    /// Notes a line of a head.
    fn note(&mut self, line: &[u8]) {
        // Few names begin with these letters, and most lines end here.
        if !matches!(line[0] | 0x20, b'c' | b't' | b'u') {
            return;
        }
        let Some(colon) = memchr(b':', line) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            let repeats = self.length.is_some() && self.length != length;
            self.is_invalid |= length.is_none() || repeats || value.starts_with(b"+");
            self.length = length.or(Some(0));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.is_upgrade = true;
        }
    }

    /// Returns how the message goes on after its head; `None` if that is ambiguous.
    fn body(self) -> Option<State> {
        match (self.is_chunked, self.length) {
            (true, Some(_)) => None,
            _ if self.is_invalid || self.is_upgrade => Some(State::Unknown),
            (true, None) => Some(State::ChunkSize(0)),
            (false, None | Some(0)) => Some(State::Between),
            (false, Some(length)) => Some(State::Body(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows the bytes in pieces, and returns the position of the fault in the whole.
    fn fault_in_pieces(bytes: &[u8], piece: usize) -> (Option<usize>, Part) {
        let mut framing = Framing::default();
        for (number, bytes) in bytes.chunks(piece).enumerate() {
            if let Err(at) = framing.follow(bytes) {
                return (Some(number * piece + at), framing.part());
            }
        }
        (None, framing.part())
    }

    #[track_caller]
    fn check(text: &str, fault: Option<usize>) {
        for piece in [1, 2, 3, 7, text.len()] {
            let (found, _) = fault_in_pieces(text.as_bytes(), piece);
            assert_eq!(found, fault, "{text:?} in pieces of {piece}");
        }
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn messages_are_followed_to_their_ends() {
        let sized = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab\ncd";
        let chunked = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
                       3;x=y\r\na\nb\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n";
        for text in [
            format!("{GET}{GET}"),
            format!("{sized}{GET}"),
            format!("{chunked}{GET}"),
            format!("\r\n{chunked}{sized}\r\n{GET}"),
        ] {
            check(&text, None);
            let (_, part) = fault_in_pieces(text.as_bytes(), 5);
            assert_eq!(part, Part::End, "{text:?}");
            // What follows is taken for a head, not for a body.
            let faulty = format!("{text}GET / HTTP/1.1\n");
            check(&faulty, Some(faulty.len() - 1));
        }
    }

    #[test]
    fn ambiguous_requests_are_faults_at_the_byte_that_shows_it() {
        for text in [
            "GET / HTTP/1.1\n",
            "GET / HTTP/1.1\r\nHost: a\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\ncontent-length:0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: 1\n",
        ] {
            check(text, Some(text.len() - 1));
        }
    }

    #[test]
    fn nothing_is_followed_after_an_upgrade_or_an_invalid_length() {
        for field in [
            "Upgrade: websocket",
            "Content-Length: x",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: +1",
        ] {
            check(&format!("GET / HTTP/1.1\r\n{field}\r\n\r\na\nb\n\n"), None);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bytes in proptest::collection::vec(
                prop_oneof![
                    Just("GET / HTTP/1.1\r\n"), Just("Content-Length: 3\r\n"), Just("\r\n"),
                    Just("Transfer-Encoding: chunked\r\n"), Just("3\r\n"), Just("abc"),
                    Just("0\r\n"), Just("\n"), Just("A: b\r\n"), Just("\r"), Just("f"),
                ],
                0..24,
            ),
            piece in 1_usize..9,
        ) {
            let bytes = bytes.concat().into_bytes();
            let whole = fault_in_pieces(&bytes, bytes.len().max(1));
            prop_assert_eq!(fault_in_pieces(&bytes, piece), whole);
        }
    }
}
