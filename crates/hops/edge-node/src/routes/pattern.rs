//! Routes as they are written, and as they are checked.

use super::host::HostPattern;
use crate::path;

/// Longest path, prefix, wildcard or regex of a route.
const PATTERN_BYTES_MAX: usize = 4096;

/// Most segments of a prefix or a wildcard: the depth to which a look-up descends.
pub(super) const SEGMENTS_MAX: usize = 64;

/// A route as it is written: what it matches, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<T> {
    /// The host: `example.com`, `*.example.com` for every host below it, or `None` for any.
    pub host: Option<String>,
    /// The methods; none for any.
    pub methods: Vec<String>,
    /// The path.
    pub path: Path,
    /// Routes of a higher priority are asked first.
    pub priority: i32,
    /// The destination, which the table hands back.
    pub target: T,
}

/// The paths that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// This path alone.
    Exact(String),
    /// This path and those below it. `/a` matches `/a` and `/a/b` but not `/ab`; `/a/` matches
    /// `/a/b` but not `/a`.
    Prefix(String),
    /// Paths with the same segments, where `*` stands for one that is not empty, and `**` at the
    /// end for the rest, which may be empty: `/users/*/files/**`.
    Wildcard(String),
    /// Paths in which this regex is found. `^` and `$` bind it to the ends. Letters and digits are
    /// those of ASCII.
    Regex(String),
}

/// A route that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {}: {problem}", .index + 1)]
pub struct RouteError {
    /// Index of the route among those given, from 0.
    pub index: usize,
    /// The reason.
    pub problem: Problem,
}

/// The reason why a route can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An earlier route matches the same requests.
    #[error(
        "'{path}' is the same as that of route {}: expected one route for the same host, path and \
         method; remove one of them", .first + 1
    )]
    Same {
        /// Index of the earlier route, from 0.
        first: usize,
        /// The path as it is written.
        path: String,
    },
    /// The path is empty.
    #[error("the path is empty: expected a path such as '/api'; '/' is the root")]
    EmptyPath,
    /// The path does not begin with a slash.
    #[error("path '{0}' does not begin with '/': expected a path such as '/api'")]
    NoSlash(String),
    /// The path has characters that no request's path has.
    #[error(
        "path '{0}' has a character that no path of a request has: expected neither '?', '#', \
         spaces nor control characters; write others as %XX"
    )]
    BadPath(String),
    /// The path is too long or too deep.
    #[error(
        "path '{0}...' is too long: expected at most {PATTERN_BYTES_MAX} bytes and \
         {SEGMENTS_MAX} segments"
    )]
    TooLong(String),
    /// A wildcard stands where it can't.
    #[error(
        "wildcard '{0}': expected '*' as a whole segment, or '**' as the last one; for anything \
         else use a regex, and without a '*' an exact path"
    )]
    BadWildcard(String),
    /// The regex is not one.
    #[error("regex '{regex}': {why}")]
    BadRegex {
        /// The regex as it is written.
        regex: String,
        /// The reason, on one line.
        why: String,
    },
    /// Too many regexes have to be tried for every path.
    #[error(
        "regex '{regex}' has no text that each of its paths has, and {most} such regexes are \
         tried for every path already: expected at most {most}; give it a fixed part, such as \
         '/users/'"
    )]
    TooManyOpenRegexes {
        /// The regex as it is written.
        regex: String,
        /// The most that there may be.
        most: usize,
    },
    /// The host is not one.
    #[error(
        "host '{0}': expected a name such as 'example.com', or '*.example.com', without a port; \
         leave it out for any host"
    )]
    BadHost(String),
    /// The method is not one.
    #[error("method '{0}': expected a method such as 'GET'; leave all out for any")]
    BadMethod(String),
    /// There are too many methods that HTTP does not name.
    #[error("method '{0}': expected at most {1} methods that HTTP itself does not name")]
    TooManyMethods(String, usize),
    /// There are too many routes.
    #[error("expected at most {0} routes; a regex or a prefix may stand for several")]
    TooManyRoutes(usize),
}

/// A path as it is compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Exact(String),
    Tree { segments: Vec<Segment>, end: End },
    Regex(String),
}

/// A segment of a prefix or a wildcard. The order is the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    Text(String),
    Any,
}

/// How a prefix or a wildcard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// The path ends here.
    Here,
    /// At least a slash follows.
    Below,
    /// The path ends here, or a slash follows.
    HereOrBelow,
}

/// A checked route: its host and its shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Checked {
    pub(super) host: HostPattern,
    pub(super) shape: Shape,
}

impl Path {
    /// Returns the path as it is written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Wildcard(text) | Self::Regex(text) => {
                text
            }
        }
    }

    fn check(&self) -> Result<Shape, Problem> {
        let text = self.as_str();
        if text.is_empty() {
            return Err(Problem::EmptyPath);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(Problem::TooLong(beginning(text)));
        }
        if let Self::Regex(regex) = self {
            return Ok(Shape::Regex(regex.clone()));
        }
        // The one target of a request that has no slash is that of OPTIONS.
        if !text.starts_with('/') && !matches!(self, Self::Exact(text) if text == "*") {
            return Err(Problem::NoSlash(shown(text)));
        }
        let is_bad = |byte: u8| byte <= b' ' || byte == 0x7f || byte == b'?' || byte == b'#';
        if text.bytes().any(is_bad) {
            return Err(Problem::BadPath(shown(text)));
        }
        // As the paths of requests are, when they are looked up.
        let mut scratch = String::new();
        let normal = path::routed(text, &mut scratch);
        let (segments, end) = match self {
            Self::Prefix(_) => prefix(normal),
            Self::Wildcard(_) => wildcard(normal)?,
            _ => return Ok(Shape::Exact(normal.to_owned())),
        };
        if segments.len() > SEGMENTS_MAX {
            return Err(Problem::TooLong(beginning(text)));
        }
        Ok(Shape::Tree { segments, end })
    }
}

impl<T> Route<T> {
    pub(super) fn check(&self) -> Result<Checked, Problem> {
        Ok(Checked {
            host: HostPattern::parse(self.host.as_deref())?,
            shape: self.path.check()?,
        })
    }
}

impl Shape {
    /// Returns what sorts shapes of one kind: the smaller is the more specific.
    pub(super) fn specificity(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Exact(_) => (0, Vec::new()),
            Self::Tree { segments, end } => {
                let classes = segments.iter().map(|segment| match segment {
                    Segment::Text(_) => 0,
                    Segment::Any => 1,
                });
                let open = match end {
                    End::Here => None,
                    End::Below => Some(2),
                    End::HereOrBelow => Some(3),
                };
                (1, classes.chain(open).collect())
            }
            Self::Regex(_) => (2, Vec::new()),
        }
    }
}

fn prefix(text: &str) -> (Vec<Segment>, End) {
    let (text, end) = match text.strip_suffix('/') {
        Some(text) => (text, End::Below),
        None => (text, End::HereOrBelow),
    };
    let segments = text.split('/').skip(1);
    let segments = segments.map(|text| Segment::Text(text.to_owned()));
    (segments.collect(), end)
}

fn wildcard(text: &str) -> Result<(Vec<Segment>, End), Problem> {
    let (text, end) = match text.strip_suffix("/**") {
        Some(text) => (text, End::Below),
        None => (text, End::Here),
    };
    let segments: Vec<Segment> = text
        .split('/')
        .skip(1)
        .map(|segment| match segment {
            "*" => Ok(Segment::Any),
            text if text.contains('*') => Err(Problem::BadWildcard(shown(text))),
            text => Ok(Segment::Text(text.to_owned())),
        })
        .collect::<Result<_, _>>()?;
    match end == End::Below || segments.contains(&Segment::Any) {
        true => Ok((segments, end)),
        false => Err(Problem::BadWildcard(shown(text))),
    }
}

/// Returns the beginning of a long text, fit for an error on one line.
fn beginning(text: &str) -> String {
    shown(text).chars().take(40).collect()
}

/// Makes a text fit for an error on one line.
pub(super) fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let clean = text.chars().take(CHARS_MAX);
    clean
        .map(|char| match char.is_control() {
            true => char::REPLACEMENT_CHARACTER,
            false => char,
        })
        .collect()
}
