//! The key under which an answer is cached: the same for requests that mean the same.
//!
//! The key is SipHash-2-4 with 128 bits of output under a secret key of this process. Nobody who
//! does not know the secret can make two requests with one key, which is how a client would put
//! its own answer in the place of another's. Faster hashes (xxh3, rapidhash, foldhash) have known
//! sets of texts that collide under every seed, or make no promise; BLAKE3 keeps the promise too
//! and takes longer for texts this short.

use std::{cell::RefCell, hash::Hasher, io};

use memchr::memchr;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::path;

/// Between parts. No UTF-8 text has this byte.
const END: u8 = 0xff;

/// Bytes that are hashed at once; the parts of most requests fit.
const PIECES_BYTES: usize = 128;

/// Parameters that are sorted without an allocation.
const PARAMETERS_FEW: usize = 32;

/// The parts of a request that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRules {
    /// How the query counts.
    pub query: QueryRule,
    /// Names of parameters that don't count, such as `utm_source`.
    pub query_ignore: Vec<String>,
    /// Names of headers that count.
    pub headers: Vec<String>,
}

/// How a query counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueryRule {
    /// Byte by byte.
    #[default]
    AsWritten,
    /// Sorted by name; parameters of one name keep their order, and empty ones are left out.
    Sorted,
    /// Not at all.
    Ignored,
}

/// The scheme of a request, which says what the default port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Port 80.
    Http,
    /// Port 443.
    Https,
}

/// A request, as far as its key depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method. An answer to GET may answer HEAD; then give GET.
    pub method: &'a str,
    /// The scheme by which the client asked.
    pub scheme: Scheme,
    /// The host, with its port if it has one.
    pub host: &'a str,
    /// The path, normalised or not.
    pub path: &'a str,
    /// The query without its question mark.
    pub query: Option<&'a str>,
}

/// Names a cached answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey(u128);

/// Makes keys by rules.
#[derive(Clone, Debug)]
pub struct CacheKeys {
    rules: KeyRules,
    /// Has read the secret, and nothing else.
    begun: SipHasher24,
}

impl CacheKey {
    /// Returns the bits.
    pub fn bits(self) -> u128 {
        self.0
    }
}

impl CacheKeys {
    /// Makes keys by these rules, under a new secret.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(rules: KeyRules) -> io::Result<Self> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        Ok(Self::with_secret(rules, &secret))
    }

    /// Makes keys by these rules, under this secret.
    pub fn with_secret(mut rules: KeyRules, secret: &[u8; 16]) -> Self {
        for name in &mut rules.headers {
            name.make_ascii_lowercase();
        }
        rules.headers.sort_unstable();
        rules.headers.dedup();
        Self {
            rules,
            begun: SipHasher24::new_with_key(secret),
        }
    }

    /// Returns the rules.
    pub fn rules(&self) -> &KeyRules {
        &self.rules
    }

    /// Returns the key of a request. `values` is called for each header that counts, and passes
    /// on each of its values in their order; its name is in lower case.
    pub fn key(
        &self,
        asked: &Asked<'_>,
        mut values: impl FnMut(&str, &mut dyn FnMut(&[u8])),
    ) -> CacheKey {
        let mut hasher = Sink::new(self.begun);
        hasher.part(asked.method.as_bytes());
        let port = match asked.scheme {
            Scheme::Http => ":80",
            Scheme::Https => ":443",
        };
        hasher.push(&[u8::from(asked.scheme == Scheme::Https)]);
        host(asked.host, port, &mut hasher);
        path(asked.path, &mut hasher);
        if let Some(query) = asked.query {
            self.query(query, &mut hasher);
        }
        for name in &self.rules.headers {
            hasher.part(name.as_bytes());
            values(name, &mut |value| {
                // A value is any bytes, so its length says where it ends.
                hasher.push(b"=");
                hasher.push(&(value.len() as u64).to_be_bytes());
                hasher.push(value);
            });
        }
        CacheKey(hasher.finish())
    }

    fn query(&self, query: &str, hasher: &mut Sink) {
        match self.rules.query {
            QueryRule::Ignored => {}
            QueryRule::AsWritten if self.rules.query_ignore.is_empty() => {
                hasher.push(b"?");
                hasher.part(query.as_bytes());
            }
            QueryRule::AsWritten => {
                hasher.push(b"?");
                for parameter in query.split('&').filter(|text| self.counts(text)) {
                    hasher.part(parameter.as_bytes());
                }
            }
            QueryRule::Sorted => self.sorted(query, hasher),
        }
    }

    fn counts(&self, parameter: &str) -> bool {
        let name = name(parameter);
        !self
            .rules
            .query_ignore
            .iter()
            .any(|ignored| ignored == name)
    }

    fn sorted(&self, query: &str, hasher: &mut Sink) {
        let all = query.split('&').filter(|text| !text.is_empty());
        let mut counted = all.filter(|text| self.counts(text));
        let mut few = [""; PARAMETERS_FEW];
        let mut count = 0;
        for (place, parameter) in few.iter_mut().zip(&mut counted) {
            *place = parameter;
            count += 1;
        }
        let mut many = Vec::new();
        let all = match counted.next() {
            None => &mut few[..count],
            Some(next) => {
                many.extend(few.into_iter().chain([next]).chain(counted));
                &mut many[..]
            }
        };
        match all.len() <= PARAMETERS_FEW {
            // Insertion keeps the order of equal names, and allocates nothing.
            true => insertion_sort(all),
            false => all.sort_by(|one, other| name(one).cmp(name(other))),
        }
        for parameter in all {
            hasher.push(b"?");
            hasher.part(parameter.as_bytes());
        }
    }
}

fn insertion_sort(all: &mut [&str]) {
    for end in 1..all.len() {
        if name(all[end - 1]) <= name(all[end]) {
            continue;
        }
        let place = all[..end].partition_point(|other| name(other) <= name(all[end]));
        all[place..=end].rotate_right(1);
    }
}

fn name(parameter: &str) -> &str {
    let end = memchr(b'=', parameter.as_bytes());
    &parameter[..end.unwrap_or(parameter.len())]
}

/// Collects pieces and feeds them to the hasher many at a time: it is slow with short ones.
struct Sink {
    hasher: SipHasher24,
    pieces: [u8; PIECES_BYTES],
    used: usize,
    /// Whether the hasher has read what is no longer in `pieces`.
    is_fed: bool,
}

impl Sink {
    #[inline]
    fn new(hasher: SipHasher24) -> Self {
        Self {
            hasher,
            pieces: [0; PIECES_BYTES],
            used: 0,
            is_fed: false,
        }
    }

    #[inline]
    fn part(&mut self, bytes: &[u8]) {
        match self.pieces.get_mut(self.used..=self.used + bytes.len()) {
            Some([free @ .., end]) => {
                free.copy_from_slice(bytes);
                *end = END;
                self.used += bytes.len() + 1;
            }
            _ => {
                self.feed(bytes);
                self.push(&[END]);
            }
        }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        match self.pieces.get_mut(self.used..self.used + bytes.len()) {
            Some(free) => {
                free.copy_from_slice(bytes);
                self.used += bytes.len();
            }
            None => self.feed(bytes),
        }
    }

    #[cold]
    fn feed(&mut self, bytes: &[u8]) {
        self.hasher.write(&self.pieces[..self.used]);
        self.hasher.write(bytes);
        self.used = 0;
        self.is_fed = true;
    }

    fn finish(mut self) -> u128 {
        let rest = &self.pieces[..self.used];
        if !self.is_fed {
            return self.hasher.hash(rest).as_u128();
        }
        self.hasher.write(rest);
        self.hasher.finish128().as_u128()
    }
}

/// Writes the host in lower case, without its final dot and the default port.
fn host(host: &str, default_port: &str, hasher: &mut Sink) {
    let name = host.strip_suffix(default_port).unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return hasher.part(name.as_bytes());
    }
    let mut lower = [0; 64];
    for piece in name.as_bytes().chunks(lower.len()) {
        let lower = &mut lower[..piece.len()];
        lower.copy_from_slice(piece);
        lower.make_ascii_lowercase();
        hasher.push(lower);
    }
    hasher.part(b"");
}

thread_local! {
    /// For paths that are not normal.
    static SCRATCH: RefCell<String> = const { RefCell::new(String::new()) };
}

fn path(path: &str, hasher: &mut Sink) {
    SCRATCH.with_borrow_mut(|scratch| hasher.part(path::normalise(path, scratch).as_bytes()));
}

#[cfg(test)]
mod tests;
