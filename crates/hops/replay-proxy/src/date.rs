//! Dates of HTTP.

use std::time::UNIX_EPOCH;

/// Reads a date in one of HTTP's three formats, as milliseconds since 1970.
pub(crate) fn parse(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?;
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Writes a date.
#[cfg(test)]
pub(crate) fn write(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + std::time::Duration::from_millis(ms))
}
