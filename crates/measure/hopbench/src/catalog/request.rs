//! Requests as data: `[[request]]` tables of a scenario, and what must come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use hyper::body::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

/// One kind of request of a load.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RequestDefinition {
    pub(crate) name: String,
    /// `None`: whatever the reference takes at the target.
    pub(crate) method: Option<String>,
    /// Targets that are asked for in turn.
    pub(crate) targets: Vec<String>,
    /// Whether no target is asked for twice.
    pub(crate) once: bool,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Body>,
    pub(crate) weight: u32,
    /// The correct answer. `None`: what the reference says of the target.
    pub(crate) expect: Option<ExpectedAnswer>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Generated { length_bytes: u64 },
    Given(Bytes),
}

/// An answer that is correct.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpectedAnswer {
    pub(crate) status: u16,
    /// `None`: any length.
    pub(crate) length_bytes: Option<u64>,
    /// `None`: any body.
    pub(crate) sha256: Option<String>,
    /// Fields that must be there, and their values if these matter.
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// A `[[request]]` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireRequest {
    /// Name in reports.
    name: String,
    /// Method; by default what the reference takes.
    method: Option<String>,
    /// Path and query, or several that are asked for in turn. '{n}' is a number of the range.
    target: OneOrMore,
    /// First and last number that take the place of `{n}`.
    range: Option<Vec<u64>>,
    /// Order of the targets.
    #[serde(default)]
    order: Order,
    /// Fields, each with a value or with several.
    #[serde(default)]
    headers: BTreeMap<String, OneOrMore>,
    /// Body as text.
    body: Option<String>,
    /// File with the body.
    body_file: Option<PathBuf>,
    /// Length of a body of numbers.
    body_bytes: Option<u64>,
    /// Share of this request among those of the load.
    #[serde(default = "one")]
    weight: u32,
    /// Correct answer; by default what the reference says.
    expect: Option<WireExpect>,
}

/// An `expect` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireExpect {
    /// Status.
    #[serde(default = "ok")]
    status: u16,
    /// Length of the body; by default any.
    length_bytes: Option<u64>,
    /// SHA-256 of the body in hexadecimal; by default any.
    sha256: Option<String>,
    /// Fields that must be there, each with its value, or 'true' for any value.
    #[serde(default)]
    headers: BTreeMap<String, ExpectedField>,
}

/// The value that a field must have, or `true` for any.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, or true for any value")]
enum ExpectedField {
    Value(String),
    Any(bool),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Order {
    #[default]
    Cyclic,
    Once,
}

/// Place of a number in a target.
const NUMBER: &str = "{n}";

/// Maximum length of a request body, in bytes.
pub(super) const BODY_BYTES_MAX: u64 = 64 << 20;

/// Maximum number of targets of a request.
const TARGETS_MAX: u64 = 100_000;

/// Maximum sum of the weights of a load's requests. Over so many requests, shares are exact.
pub(super) const WEIGHTS_MAX: u32 = 1_000;

impl WireRequest {
    /// Checks the table, and reads the file of its body.
    pub(super) fn read(self) -> Result<RequestDefinition, String> {
        let name = self.name.clone();
        self.parsed()
            .map_err(|message| format!("request '{name}': {message}"))
    }

    fn parsed(self) -> Result<RequestDefinition, String> {
        if !super::is_plain_name(&self.name) {
            return Err(
                "'name': expected letters, digits, spaces, '-', '_', '.' and '+'".to_owned(),
            );
        }
        if let Some(method) = &self.method
            && (method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            return Err(format!(
                "'method': expected one such as 'GET', found '{method}'"
            ));
        }
        if self.weight == 0 {
            return Err("'weight': expected 1 or more, found 0".to_owned());
        }
        let targets = targets(self.target.into_list(), self.range.as_deref())?;
        if self.order == Order::Once {
            each_once(&targets)?;
        }
        let body = body(self.body, self.body_file, self.body_bytes)?;
        if self.expect.is_none() && matches!(body, Some(Body::Given(_))) && self.method.is_none() {
            return Err(
                "'method': expected one, such as 'POST', for a request with a body".to_owned(),
            );
        }
        let headers = self.headers.into_iter().flat_map(|(name, values)| {
            let values = values.into_list();
            values.into_iter().map(move |value| (name.clone(), value))
        });
        let headers: Vec<(String, String)> = headers.collect();
        for (name, value) in &headers {
            check_field(name, value)?;
        }
        Ok(RequestDefinition {
            name: self.name,
            method: self.method,
            once: self.order == Order::Once,
            targets,
            headers,
            body,
            weight: self.weight,
            expect: self.expect.map(WireExpect::read).transpose()?,
        })
    }
}

impl WireExpect {
    pub(super) fn read(self) -> Result<ExpectedAnswer, String> {
        if !(100..=999).contains(&self.status) {
            return Err(format!(
                "'status': expected 100 to 999, found {}",
                self.status
            ));
        }
        let sha256 = self.sha256.map(|sha256| sha256.to_ascii_lowercase());
        if let Some(sha256) = &sha256
            && (sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(format!(
                "'sha256': expected 64 hexadecimal digits, found '{sha256}'"
            ));
        }
        let mut headers = Vec::new();
        for (name, value) in self.headers {
            let value = match value {
                ExpectedField::Value(value) => Some(value),
                ExpectedField::Any(true) => None,
                ExpectedField::Any(false) => {
                    return Err(format!(
                        "'headers': '{name}': expected a value, or 'true' for any value"
                    ));
                }
            };
            check_field(&name, value.as_deref().unwrap_or_default())?;
            headers.push((name, value));
        }
        Ok(ExpectedAnswer {
            status: self.status,
            length_bytes: self.length_bytes,
            sha256,
            headers,
        })
    }
}

/// Checks what concerns the requests of a load together.
pub(super) fn check(requests: &[RequestDefinition], count: Option<u64>) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for request in requests {
        if !names.insert(&request.name) {
            return Err(format!(
                "request '{}' is repeated: expected unique names",
                request.name
            ));
        }
    }
    let weights = requests.iter().map(|it| it.weight);
    let sum = weights.fold(0, u32::saturating_add);
    if sum > WEIGHTS_MAX {
        return Err(format!(
            "'weight': the weights add up to {sum}, expected at most {WEIGHTS_MAX}"
        ));
    }
    for request in requests.iter().filter(|request| request.once) {
        let name = &request.name;
        let Some(count) = count else {
            return Err(format!(
                "request '{name}': 'order': 'once' needs a number of requests; expected 'requests' \
                 in place of 'duration-ms'"
            ));
        };
        let asked = (count * u64::from(request.weight)).div_ceil(u64::from(sum.max(1)));
        let targets = request.targets.len() as u64;
        if asked > targets {
            return Err(format!(
                "request '{name}': 'order': {asked} of {count} requests are of this kind, but \
                 there are only {targets} targets to ask for once each"
            ));
        }
    }
    Ok(())
}

fn targets(given: Vec<String>, range: Option<&[u64]>) -> Result<Vec<String>, String> {
    if given.is_empty() {
        return Err("'target': expected at least one".to_owned());
    }
    for target in &given {
        if !target.starts_with('/') || target.contains(char::is_whitespace) {
            return Err(format!(
                "'target': expected a path that begins with '/', found '{target}'"
            ));
        }
    }
    let has_number = |target: &String| target.contains(NUMBER);
    let Some(range) = range else {
        return match given.iter().find(|target| has_number(target)) {
            Some(target) => Err(format!(
                "'target': '{target}' has a '{NUMBER}': expected 'range', such as [0, 999]"
            )),
            None => Ok(given),
        };
    };
    let &[first, last] = range else {
        return Err(format!(
            "'range': expected two numbers, the first and the last, found {}",
            range.len()
        ));
    };
    if !given.iter().any(has_number) {
        return Err(format!(
            "'range': expected a target with '{NUMBER}', such as '/item/{NUMBER}'"
        ));
    }
    let numbers = last.checked_sub(first).and_then(|it| it.checked_add(1));
    match numbers {
        None => {
            return Err(format!(
                "'range': expected the first number and the last, found [{first}, {last}]"
            ));
        }
        Some(numbers) if numbers.saturating_mul(given.len() as u64) > TARGETS_MAX => {
            return Err(format!("'range': expected at most {TARGETS_MAX} targets"));
        }
        Some(_) => {}
    }
    let (numbered, fixed): (Vec<String>, Vec<String>) = given.into_iter().partition(has_number);
    let of_number = |number: u64| {
        let number = number.to_string();
        let targets = numbered.iter();
        let targets: Vec<String> = targets.map(|it| it.replace(NUMBER, &number)).collect();
        targets
    };
    let all = (first..=last).flat_map(of_number).chain(fixed.clone());
    Ok(all.collect())
}

/// Fails if a target would be asked for twice.
fn each_once(targets: &[String]) -> Result<(), String> {
    let mut known = BTreeSet::new();
    match targets.iter().find(|target| !known.insert(*target)) {
        Some(twice) => Err(format!(
            "'order': 'once', but the target '{twice}' is there twice"
        )),
        None => Ok(()),
    }
}

fn body(
    text: Option<String>,
    file: Option<PathBuf>,
    length_bytes: Option<u64>,
) -> Result<Option<Body>, String> {
    let too_long = |length_bytes: u64| match length_bytes > BODY_BYTES_MAX {
        true => Err(format!(
            "the body has {length_bytes} bytes, expected at most {BODY_BYTES_MAX}"
        )),
        false => Ok(()),
    };
    Ok(Some(match (text, file, length_bytes) {
        (None, None, None) => return Ok(None),
        (Some(text), None, None) => Body::Given(text.into()),
        (None, Some(file), None) => Body::Given(read(&file)?),
        (None, None, Some(length_bytes)) => {
            too_long(length_bytes)?;
            Body::Generated { length_bytes }
        }
        _ => {
            return Err("expected at most one of 'body', 'body-file' and 'body-bytes'".to_owned());
        }
    }))
}

fn read(file: &Path) -> Result<Bytes, String> {
    let name = file.display();
    let failed = |error: std::io::Error| format!("'body-file': could not read '{name}': {error}");
    let metadata = fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > BODY_BYTES_MAX {
        return Err(format!(
            "'body-file': '{name}': expected a regular file of at most {BODY_BYTES_MAX} bytes"
        ));
    }
    Ok(fs::read(file).map_err(failed)?.into())
}

fn check_field(name: &str, value: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!(
            "'headers': '{name}' is not the name of a header field"
        ));
    }
    if value
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err(format!(
            "'headers': '{name}': expected a value without line breaks or other control characters"
        ));
    }
    Ok(())
}

impl OneOrMore {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

fn one() -> u32 {
    1
}

fn ok() -> u16 {
    200
}
