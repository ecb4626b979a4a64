//! Figures in a file of Locust: `*_stats.csv`, which `locust --csv` writes.

use super::{External, ExternalError, NUMBER_MAX};

/// Names of the columns that are read.
const REQUESTS: &str = "Request Count";
const FAILURES: &str = "Failure Count";
const RATE: &str = "Requests/s";

/// Name of the row that has all requests together.
const ALL: &str = "Aggregated";

/// A row with the number of the line in which it begins.
struct Row {
    line: usize,
    fields: Vec<String>,
}

/// Reads the row of all requests together.
pub(super) fn read(text: &str) -> Result<External, ExternalError> {
    let rows = rows(text)?;
    let Some((heading, rows)) = rows.split_first() else {
        return Err(ExternalError::at(1, unknown("nothing")));
    };
    if !["Type", "Name", REQUESTS]
        .iter()
        .eq(heading.fields.iter().take(3))
    {
        let found: String = text
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .take(40)
            .collect();
        return Err(ExternalError::at(
            heading.line,
            unknown(&format!("'{found}'")),
        ));
    }
    let Some(row) = rows
        .iter()
        .find(|row| row.fields.get(1).is_some_and(|it| it == ALL))
    else {
        let last = rows.last().unwrap_or(heading);
        let message = format!("'Name': expected a row '{ALL}', found none");
        return Err(ExternalError::at(last.line, message));
    };
    let number = |column: &str| row.number(heading, column);
    let count = |column: &str| row.count(heading, column);
    let us = |column: &str| Ok(number(column)?.map(|ms| ms * 1e3));
    let missing = |column: &str| {
        ExternalError::at(
            row.line,
            format!("'{column}': expected a number, found none"),
        )
    };
    Ok(External {
        engine: "locust".to_owned(),
        requests: count(REQUESTS)?.ok_or_else(|| missing(REQUESTS))?,
        failures: count(FAILURES)?,
        rate_rps: Some(number(RATE)?.ok_or_else(|| missing(RATE))?),
        p50_us: us("50%")?,
        p95_us: us("95%")?,
        p99_us: us("99%")?,
        max_us: us("100%")?,
        ..External::default()
    })
}

fn unknown(found: &str) -> String {
    format!(
        "expected 'hopbench-external.json', a '*_stats.csv' of Locust that begins with \
         'Type,Name,{REQUESTS}', or a summary of k6 as JSON, found {found}"
    )
}

impl Row {
    /// Returns the number in a column; none if there is no such column, or if Locust has no number.
    fn number(&self, heading: &Self, column: &str) -> Result<Option<f64>, ExternalError> {
        let index = heading.fields.iter().position(|name| name == column);
        let Some(index) = index else {
            return Ok(None);
        };
        let found = self.fields.get(index).map_or("", String::as_str).trim();
        if ["", "N/A"].contains(&found) {
            return Ok(None);
        }
        match found.parse::<f64>() {
            Ok(number) if (0.0..=NUMBER_MAX).contains(&number) => Ok(Some(number)),
            _ => {
                let found: String = found.chars().take(40).collect();
                Err(ExternalError::at(
                    self.line,
                    format!("'{column}': expected a number from 0 to 2^48, found '{found}'"),
                ))
            }
        }
    }

    fn count(&self, heading: &Self, column: &str) -> Result<Option<u64>, ExternalError> {
        match self.number(heading, column)? {
            None => Ok(None),
            Some(number) if number.fract() == 0.0 => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a whole number from 0 to 2^48"
                )]
                let count = number as u64;
                Ok(Some(count))
            }
            Some(number) => Err(ExternalError::at(
                self.line,
                format!("'{column}': expected a whole number, found {number}"),
            )),
        }
    }
}

/// Splits a text into rows and fields (RFC 4180). Rows without anything are left out.
fn rows(text: &str) -> Result<Vec<Row>, ExternalError> {
    let mut rows = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut begin) = (1, 1);
    let mut quoted_since = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        line += usize::from(letter == '\n');
        match (quoted_since, letter) {
            (Some(_), '"') if letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            (Some(_), '"') => quoted_since = None,
            (Some(_), letter) => field.push(letter),
            (None, '"') if field.is_empty() => quoted_since = Some(line),
            (None, ',') => fields.push(std::mem::take(&mut field)),
            (None, '\r') if letters.peek() == Some(&'\n') => {}
            (None, '\n') => {
                fields.push(std::mem::take(&mut field));
                let fields = std::mem::take(&mut fields);
                if fields.iter().any(|it| !it.is_empty()) {
                    rows.push(Row {
                        line: begin,
                        fields,
                    });
                }
                begin = line;
            }
            (None, letter) => field.push(letter),
        }
    }
    if let Some(line) = quoted_since {
        let message = "expected a '\"' that ends the text, found the end of the file";
        return Err(ExternalError::at(line, message.to_owned()));
    }
    fields.push(field);
    if fields.iter().any(|it| !it.is_empty()) {
        rows.push(Row {
            line: begin,
            fields,
        });
    }
    Ok(rows)
}
