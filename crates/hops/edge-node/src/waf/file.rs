//! Judges requests in a file, a JSON object a line.

use std::io::{BufRead, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{Request, Scratch, Verdict, Waf};

/// A line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    request: RequestLine,
}

/// A request. Other members, such as its version, don't matter here.
#[derive(Debug, Deserialize)]
struct RequestLine {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
}

/// A line of the answer.
#[derive(Debug, Serialize)]
struct Judged<'a> {
    id: &'a str,
    blocked: bool,
    score: u32,
    rules: Vec<&'a str>,
}

/// How many requests were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests in the file.
    pub requests: u64,
    /// Requests that would be refused.
    pub blocked: u64,
}

/// A file that can't be judged.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A line isn't a request.
    #[error("line {line}: {reason}; expected an object with 'id' and 'request'")]
    Line {
        /// The line's number, from 1.
        line: usize,
        /// The reason.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("could not read or write: {0}")]
    Io(#[from] std::io::Error),
}

/// Judges each request of `input` and writes a line for it: its id, whether it would be refused,
/// its score and the rules that matched.
///
/// # Errors
/// The first line that isn't a request, by its number, or a failure to read or write.
pub fn judge(waf: &Waf, input: impl BufRead, mut output: impl Write) -> Result<Tally, FileError> {
    let mut scratch = Scratch::default();
    let mut tally = Tally::default();
    for (index, text) in input.split(b'\n').enumerate() {
        let text = text?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let fail = |reason: String| FileError::Line {
            line: index + 1,
            reason,
        };
        let line: Line = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
        let verdict = verdict(waf, &line.request, &mut scratch).map_err(fail)?;
        let judged = Judged {
            id: &line.id,
            blocked: verdict.is_attack,
            score: verdict.score,
            rules: verdict.matches.iter().map(|found| &*found.rule).collect(),
        };
        serde_json::to_writer(&mut output, &judged).map_err(std::io::Error::from)?;
        output.write_all(b"\n")?;
        tally.requests += 1;
        tally.blocked += u64::from(verdict.is_attack);
    }
    output.flush()?;
    Ok(tally)
}

fn verdict(waf: &Waf, line: &RequestLine, scratch: &mut Scratch) -> Result<Verdict, String> {
    let body = match (&line.body, &line.body_base64) {
        (Some(_), Some(_)) => return Err("'body' and 'body_base64' exclude each other".to_owned()),
        (Some(body), None) => body.clone().into_bytes(),
        (None, Some(encoded)) => STANDARD
            .decode(encoded)
            .map_err(|error| format!("'body_base64' is not Base64: {error}"))?,
        (None, None) => Vec::new(),
    };
    let headers = line
        .headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let request = Request {
        method: line.method.as_bytes(),
        target: line.target.as_bytes(),
        headers,
        body: &body,
    };
    Ok(waf.inspect(request, scratch))
}

#[cfg(test)]
mod tests {
    use super::super::{Rules, Settings};
    use super::*;

    fn waf() -> Waf {
        let rules = Rules::builtin().expect("built-in rules");
        Waf::new(Settings::default(), rules).expect("a WAF")
    }

    #[test]
    fn each_request_is_judged() {
        let input = concat!(
            r#"{"id":"a","request":{"method":"GET","target":"/","headers":[]}}"#,
            "\n\n",
            r#"{"id":"b","request":{"method":"GET","target":"/?q=1'+or+'1'='1","headers":[]}}"#,
            "\n",
        );
        let mut output = Vec::new();
        let tally = judge(&waf(), input.as_bytes(), &mut output).expect("judged");
        assert_eq!((tally.requests, tally.blocked), (2, 1));
        let output = String::from_utf8(output).expect("text");
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"id":"a","blocked":false,"score":0,"rules":[]}"#
        );
        assert!(
            lines[1].starts_with(r#"{"id":"b","blocked":true,"#),
            "{}",
            lines[1]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        for (input, expected) in [
            ("\n{}", "line 2: missing field `id`"),
            ("{", "line 1: EOF"),
            (
                r#"{"id":"a","request":{"method":"","target":"","headers":[],"body_base64":"?"}}"#,
                "line 1: 'body_base64' is not Base64",
            ),
        ] {
            let error = judge(&waf(), input.as_bytes(), Vec::new()).expect_err("an error");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
