//! Goal: whatever its framing, a replayed answer is the one that was recorded. Method: exchanges
//! that are made from their numbers, so that nobody has to remember them: the client compares each
//! answer with what the upstream sent, while it is recorded and when it is replayed.

mod support;

use std::{
    io::{self, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

use support::{Proxy, processes::WATCHDOG, upstream};
use tempfile::TempDir;

/// Exchanges per test; `REPLAY_EXCHANGES` sets another number.
fn exchanges() -> usize {
    let number = std::env::var("REPLAY_EXCHANGES");
    number.map_or(3_000, |text| text.parse().expect("a number"))
}

/// How the upstream says where a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    Length,
    Chunked,
    Close,
    None,
}

/// A request and its answer.
struct Exchange {
    method: &'static str,
    upload: Vec<u8>,
    seed: u64,
    framing: Framing,
    content: Content,
}

/// The meaning of an answer.
#[derive(PartialEq, Eq, Debug)]
struct Content {
    status: Vec<u8>,
    /// Names in lower case, without those that frame a body.
    fields: Vec<Vec<u8>>,
    body: Vec<u8>,
    trailers: Vec<Vec<u8>>,
}

impl Exchange {
    fn new(number: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let method = ["GET", "GET", "GET", "HEAD", "POST"][random.usize(..5)];
        let status: &[u8] = [
            b"200 OK".as_slice(),
            b"200 OK",
            b"404 Not Found",
            b"299 Odd one",
            b"503 Later",
            b"204 No Content",
            b"418 ",
        ][random.usize(..7)];
        let framing = match (method, status) {
            ("HEAD", _) | (_, b"204 No Content") => Framing::None,
            _ => [Framing::Length, Framing::Chunked, Framing::Close][random.usize(..3)],
        };
        let length = match random.usize(..40) {
            _ if framing == Framing::None => 0,
            0 => random.usize(32_000..90_000),
            1..8 => 0,
            8..20 => random.usize(..64),
            _ => random.usize(..3_000),
        };
        let mut fields = vec![b"date: Sun, 06 Nov 1994 08:49:37 GMT".to_vec()];
        for index in 0..random.usize(..6) {
            // Names that repeat, and values of any bytes that may be in one.
            let mut field = format!("x-field-{}: {index}", random.usize(..3)).into_bytes();
            for _ in 0..random.usize(..20) {
                field.push([b'a', b'"', b',', 0xff, 0xc3, b'=', b'\t', b'z'][random.usize(..8)]);
            }
            field.push(b'.');
            fields.push(field);
        }
        let has_trailers = framing == Framing::Chunked && random.bool();
        let mut trailers = Vec::new();
        if has_trailers {
            fields.push(b"trailer: x-sum, x-end".into());
            trailers = vec![
                format!("x-sum: {number}").into_bytes(),
                b"x-end: yes".into(),
            ];
        }
        let upload = match method {
            "POST" => bytes(&mut random, 1, 2_000),
            _ => Vec::new(),
        };
        let content = Content {
            status: status.to_vec(),
            fields,
            body: bytes(&mut random, length, length + 1),
            trailers,
        };
        Self {
            method,
            upload,
            seed: random.u64(..),
            framing,
            content,
        }
    }

    fn request(&self, number: usize, takes_trailers: bool) -> Vec<u8> {
        let mut text = format!("{} /{number} HTTP/1.1\r\nHost: test\r\n", self.method);
        if takes_trailers {
            text += "TE: trailers\r\nConnection: TE\r\n";
        }
        if self.method == "POST" {
            text += &format!("Content-Length: {}\r\n", self.upload.len());
        }
        [text.as_bytes(), b"\r\n", &self.upload].concat()
    }

    /// Returns the answer as the upstream sends it.
    fn answer(&self) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let Content {
            status,
            fields,
            body,
            trailers,
        } = &self.content;
        let mut wire = [b"HTTP/1.1 ".as_slice(), status, b"\r\n"].concat();
        for field in fields {
            wire.extend_from_slice(&[field, b"\r\n".as_slice()].concat());
        }
        match self.framing {
            Framing::Length => wire.extend(format!("Content-Length: {}\r\n", body.len()).bytes()),
            Framing::Chunked => wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Close => wire.extend_from_slice(b"Connection: close\r\n"),
            Framing::None => {}
        }
        wire.extend_from_slice(b"\r\n");
        if self.framing != Framing::Chunked {
            wire.extend_from_slice(body);
            return wire;
        }
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.usize(1..=rest.len()));
            wire.extend(format!("{:x}\r\n", chunk.len()).bytes());
            wire.extend_from_slice(&[chunk, b"\r\n"].concat());
            rest = after;
        }
        wire.extend_from_slice(b"0\r\n");
        for trailer in trailers {
            wire.extend_from_slice(&[trailer, b"\r\n".as_slice()].concat());
        }
        wire.extend_from_slice(b"\r\n");
        wire
    }
}

fn bytes(random: &mut fastrand::Rng, least: usize, below: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.usize(least..below)];
    random.fill(&mut bytes);
    bytes
}

/// Reads the lines of a head or of trailers, up to an empty one. Names are put in lower case.
fn lines(reader: &mut impl io::BufRead) -> io::Result<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        if text.is_empty() {
            return Ok(lines);
        }
        let mut text = text.to_vec();
        let name = text.iter().position(|&byte| byte == b':').unwrap_or(0);
        text[..name].make_ascii_lowercase();
        lines.push(text);
    }
}

/// Reads an answer to a request, and whether the connection ends with it.
fn read(reader: &mut impl io::BufRead, has_body: bool) -> io::Result<(Content, bool)> {
    let mut fields = lines(reader)?;
    let status = fields.remove(0);
    let status = status.strip_prefix(b"HTTP/1.1 ").expect("a status line");
    let (mut length, mut is_chunked, mut closes) = (0, false, false);
    fields.retain(|field| {
        let text = String::from_utf8_lossy(field).to_lowercase();
        let (name, value) = text.split_once(':').expect("a field");
        match name {
            "content-length" => length = value.trim().parse().expect("a length"),
            "transfer-encoding" => is_chunked = value.trim() == "chunked",
            "connection" => closes = value.trim() == "close",
            _ => return true,
        }
        false
    });
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    if has_body && is_chunked {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let chunk = usize::from_str_radix(line.trim(), 16).expect("a chunk's length");
            if chunk == 0 {
                trailers = lines(reader)?;
                break;
            }
            let at = body.len();
            body.resize(at + chunk, 0);
            reader.read_exact(&mut body[at..])?;
            reader.read_exact(&mut [0; 2])?;
        }
    } else if has_body {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    }
    let content = Content {
        status: status.to_vec(),
        fields,
        body,
        trailers,
    };
    Ok((content, closes))
}

/// Asks for numbers that nobody else asks for, and compares each answer.
fn ask(address: SocketAddr, next: &AtomicUsize, is_recorded: bool) {
    let connect = || {
        let client = TcpStream::connect(address).expect("it listens");
        client.set_read_timeout(Some(WATCHDOG)).expect("set");
        BufReader::new(client)
    };
    let mut reader = connect();
    loop {
        let number = next.fetch_add(1, Relaxed);
        if number >= exchanges() {
            return;
        }
        let exchange = Exchange::new(number);
        // A request that says what it takes is read by hyper, and so are all that follow it. Once
        // it has been recorded, an answer has its trailers, whether its first client took them or
        // not.
        let takes_trailers = is_recorded || number % 500 >= 250;
        let request = exchange.request(number, takes_trailers);
        reader.get_mut().write_all(&request).expect("sent");
        let has_body = exchange.framing != Framing::None;
        let (content, closes) =
            read(&mut reader, has_body).unwrap_or_else(|error| panic!("{number}: {error}"));
        let expected = exchange.content;
        assert_eq!(content.status, expected.status, "{number}");
        if takes_trailers || !content.trailers.is_empty() {
            assert_eq!(content.trailers, expected.trailers, "{number}");
        }
        assert_eq!(sorted(content.fields), sorted(expected.fields), "{number}");
        assert!(content.body == expected.body, "{number}: another body");
        if closes {
            reader = connect();
        }
    }
}

/// Puts the fields in the order of their names; those of one name stay as they are.
fn sorted(mut fields: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let name = |field: &Vec<u8>| field.split(|&byte| byte == b':').next().map(<[u8]>::to_vec);
    fields.sort_by_key(name);
    fields
}

fn ask_for_all(proxy: &Proxy, is_recorded: bool) {
    let (next, address) = (AtomicUsize::new(0), proxy.address);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ask(address, &next, is_recorded));
        }
    });
}

#[test]
fn answers_of_every_framing_are_replayed_as_they_were() {
    let upstream = upstream(|_, head, client| {
        let number = head.split([' ', '/']).nth(2).expect("a target");
        let exchange = Exchange::new(number.parse().expect("a number"));
        client.write_all(&exchange.answer()).is_ok() && exchange.framing != Framing::Close
    });
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    ask_for_all(&proxy, false);
    assert_eq!(proxy.status("answers_stored"), exchanges() as u64);
    proxy.stop();
    let asked = upstream.requests();
    let proxy = Proxy::start(&store, "replay", None, &[]);
    ask_for_all(&proxy, true);
    assert_eq!(proxy.status("cache_hits_total"), exchanges() as u64);
    assert_eq!(upstream.requests(), asked, "the upstream isn't asked again");
    proxy.stop();
}
