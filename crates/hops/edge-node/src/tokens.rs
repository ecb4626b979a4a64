//! Tokens of clients, from the files of a directory: who has none of them is refused.
//!
//! Only keyed hashes of the tokens are kept, with a key that is made anew for each configuration.
//! A look-up compares hashes, so that its time says nothing about a token.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use replay_proxy::fields::Fields;

/// All tokens of a configuration.
pub(crate) struct Tokens {
    key: [u8; 32],
    hashes: HashSet<[u8; 32]>,
}

/// Why tokens can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokensError {
    #[error("there are no tokens in '{}'", .0.display())]
    Empty(PathBuf),
    #[error("could not read '{}': {error}", file.display())]
    Io { file: PathBuf, error: io::Error },
    #[error("'{}' is too large: expected {FILE_BYTES_MAX} bytes at most", .0.display())]
    Large(PathBuf),
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
    #[error(
        "'{}', line {line}: expected a token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, \
         digits and '-._~+/='",
        file.display()
    )]
    Token { file: PathBuf, line: usize },
    #[error("'{}' has more than {FILES_MAX} files: expected the tokens of clients", .0.display())]
    TooMany(PathBuf),
}

/// Most files of a directory, and the longest of them.
const FILES_MAX: usize = 100_000;
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Shortest token. A shorter one could be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Longest token; a longer one has no place in a field.
const TOKEN_BYTES_MAX: usize = 4 * 1024;

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.hashes.len())
    }
}

impl Tokens {
    /// Reads all files of a directory, but for those whose names begin with a dot. Each line is a
    /// token; empty lines, and those that begin with `#`, are none.
    ///
    /// # Errors
    /// If a file can't be read, has a line that is no token, or if there are no tokens at all.
    pub(crate) fn read(directory: &Path) -> Result<Self, TokensError> {
        let failed = |file: &Path| {
            let file = file.to_owned();
            move |error| TokensError::Io { file, error }
        };
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(TokensError::Random)?;
        let mut tokens = Self {
            key,
            hashes: HashSet::new(),
        };
        let mut files = 0;
        for entry in fs::read_dir(directory).map_err(failed(directory))? {
            let file = entry.map_err(failed(directory))?.path();
            let name = file.file_name().map(|name| name.as_encoded_bytes());
            if name.is_some_and(|name| name.starts_with(b".")) {
                continue;
            }
            files += 1;
            if files > FILES_MAX {
                return Err(TokensError::TooMany(directory.to_owned()));
            }
            match text(&file) {
                // It was there when the directory was read.
                Err(TokensError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {}
                other => tokens.add(&file, &other?)?,
            }
        }
        match tokens.hashes.is_empty() {
            true => Err(TokensError::Empty(directory.to_owned())),
            false => Ok(tokens),
        }
    }

    fn add(&mut self, file: &Path, text: &[u8]) -> Result<(), TokensError> {
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if !is_token(line) {
                return Err(TokensError::Token {
                    file: file.to_owned(),
                    line: index + 1,
                });
            }
            self.hashes.insert(self.hash(line));
        }
        Ok(())
    }

    fn hash(&self, token: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, token).as_bytes()
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.hashes.len()
    }

    /// Returns whether a request has a token (`Authorization: Bearer TOKEN`, RFC 6750). Of two such
    /// fields, the upstream might believe the other one.
    pub(crate) fn admit<F: Fields + ?Sized>(&self, fields: &F) -> bool {
        let mut values = fields.all("authorization");
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Some((scheme, token)) = value.split_at_checked(7) else {
            return false;
        };
        let token = token.trim_ascii();
        scheme.eq_ignore_ascii_case(b"bearer ")
            && token.len() <= TOKEN_BYTES_MAX
            && self.hashes.contains(&self.hash(token))
    }
}

/// Reads a file. What is no regular file has no tokens.
fn text(file: &Path) -> Result<Vec<u8>, TokensError> {
    let failed = |error| TokensError::Io {
        file: file.to_owned(),
        error,
    };
    // Whoever opens anything else may wait for ever.
    if !fs::metadata(file).map_err(failed)?.is_file() {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    let read = File::open(file).and_then(|it| it.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
    match read.map_err(failed)? as u64 > FILE_BYTES_MAX {
        true => Err(TokensError::Large(file.to_owned())),
        false => Ok(text),
    }
}

/// Returns whether this is a token as it stands in a field (RFC 6750, section 2.1).
fn is_token(text: &[u8]) -> bool {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) && text.iter().all(is_fit)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn directory(files: &[(&str, &str)]) -> TempDir {
        let directory = TempDir::new().expect("a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("writable");
        }
        directory
    }

    fn admits(tokens: &Tokens, values: &[&str]) -> bool {
        let mut fields = hyper::HeaderMap::new();
        for value in values {
            let value = value.parse().expect("a value");
            fields.append("authorization", value);
        }
        tokens.admit(&fields)
    }

    #[test]
    fn who_has_a_token_is_admitted_and_nobody_else() {
        let files = [
            (
                "one",
                "# of the shop\nfirst-token-of-one\n\nsecond-token-of-one\r\n",
            ),
            ("two", "only-token-of-two+/="),
            (".two.new", "hidden-token-of-two"),
        ];
        let directory = directory(&files);
        fs::create_dir(directory.path().join("folder")).expect("writable");
        let tokens = Tokens::read(directory.path()).expect("tokens");
        assert_eq!(tokens.count(), 3);
        for right in [
            "first-token-of-one",
            "second-token-of-one",
            "only-token-of-two+/=",
        ] {
            assert!(admits(&tokens, &[&format!("Bearer {right}")]), "{right}");
            assert!(admits(&tokens, &[&format!("bearer  {right}")]), "{right}");
            assert!(!admits(&tokens, &[&format!("Basic {right}")]), "{right}");
            assert!(!admits(&tokens, &[&format!("Bearer {right}x")]), "{right}");
        }
        assert!(!admits(&tokens, &["Bearer hidden-token-of-two"]));
        for wrong in ["Bearer # of the shop", "Bearer", "Bearer ", ""] {
            assert!(!admits(&tokens, &[wrong]), "{wrong}");
        }
        assert!(!admits(&tokens, &[]));
        for two in [
            ["Basic abc", "Bearer first-token-of-one"],
            ["Bearer first-token-of-one", "Bearer first-token-of-one"],
        ] {
            assert!(!admits(&tokens, &two), "{two:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_named_with_its_line() {
        for (text, said) in [
            ("short\n", "', line 1: expected a token of 16 to 4096"),
            (
                "good-token-of-one\nwith a space in it\n",
                "', line 2: expected",
            ),
            (
                "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
                "', line 1: expected",
            ),
            ("# nothing\n", "there are no tokens in '"),
        ] {
            let directory = directory(&[("one", text)]);
            let error = Tokens::read(directory.path()).expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
        }
        let large = "good-token-of-one\n".repeat(4_000);
        let error = Tokens::read(directory(&[("one", &large)]).path()).expect_err("large");
        assert!(error.to_string().contains("is too large"), "{error}");
        let error = Tokens::read(Path::new("/nowhere"))
            .expect_err("gone")
            .to_string();
        assert!(error.starts_with("could not read '/nowhere': "), "{error}");
    }
}
