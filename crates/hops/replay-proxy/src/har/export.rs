//! Writes recordings as a HAR file.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::wire::{Content, Entry, Header, Request, Response};
use crate::{
    fields::Fields,
    store::{Files, Row, reader, rows},
    stored::Timing,
};

/// Writes a file with the rows that `each` is given. Returns how many were written, and what could
/// not be.
///
/// # Errors
/// If the file can't be written.
pub(crate) fn export(
    files: &Files,
    file: &mut dyn Write,
    each: impl FnOnce(&mut dyn FnMut(Row)),
) -> io::Result<(u64, Vec<String>)> {
    write!(
        file,
        "{{\"log\":{{\"version\":\"1.2\",\"creator\":{{\"name\":\"replay-proxy\",\
         \"version\":\"{}\"}},\"entries\":[",
        env!("CARGO_PKG_VERSION")
    )?;
    let (mut count, mut bad, mut failed) = (0_u64, Vec::new(), None);
    each(&mut |row| {
        if failed.is_some() {
            return;
        }
        let id = row.id;
        match entry(row, files) {
            Ok(entry) => {
                let comma = if count == 0 { "\n" } else { ",\n" };
                let written = file.write_all(comma.as_bytes()).and_then(|()| {
                    serde_json::to_writer(&mut *file, &entry).map_err(io::Error::from)
                });
                count += 1;
                failed = written.err();
            }
            Err(error) => bad.push(format!("row {id}: {error}")),
        }
    });
    match failed {
        Some(error) => Err(error),
        None => {
            file.write_all(b"\n]}}\n")?;
            Ok((count, bad))
        }
    }
}

fn entry(row: Row, files: &Files) -> Result<Entry, reader::LoadError> {
    let request_body = reader::body(&row.request_body, &row.request_digest, files)?;
    let body = reader::body(&row.body, &row.digest, files)?;
    let fields = rows::fields(&row.request_fields);
    let host = fields
        .get("host")
        .map(lossy)
        .unwrap_or_else(|| "localhost".to_owned());
    let is_exact = str::from_utf8(row.head.bytes()).is_ok();
    let time_ms = (row.received_ms - row.requested_ms).max(0);
    let started = jiff::Timestamp::from_millisecond(row.requested_ms).unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one request")]
    let time = time_ms as f64;
    Ok(Entry {
        started_date_time: started.to_string(),
        time,
        request: Request {
            method: row.method,
            url: format!("http://{host}{}", row.target),
            http_version: "HTTP/1.1".to_owned(),
            headers: headers(&fields),
            query_string: Vec::new(),
            cookies: Vec::new(),
            post_data: (!request_body.is_empty()).then(|| content(&request_body, &fields)),
            headers_size: -1,
            body_size: signed(request_body.len()),
        },
        response: Response {
            status: i64::from(row.head.status),
            status_text: lossy(row.head.reason()),
            http_version: "HTTP/1.1".to_owned(),
            headers: headers(&row.head),
            cookies: Vec::new(),
            content: content(&body, &row.head),
            redirect_url: row.head.get("location").map(lossy).unwrap_or_default(),
            headers_size: -1,
            body_size: signed(body.len()),
            framing: Some(row.framing.number()),
            head: (!is_exact).then(|| STANDARD.encode(row.head.bytes())),
            trailers: row
                .trailers
                .as_ref()
                .map(|trailers| STANDARD.encode(trailers)),
            timing: row
                .timing
                .as_ref()
                .map(Timing::encode)
                .map(|it| STANDARD.encode(it)),
        },
        cache: serde_json::json!({}),
        timings: serde_json::json!({"send": 0, "wait": time_ms, "receive": 0}),
    })
}

fn headers(fields: &impl Fields) -> Vec<Header> {
    let fields = fields.iter();
    fields
        .map(|(name, value)| Header {
            name: lossy(name),
            value: lossy(value),
        })
        .collect()
}

fn content(body: &Bytes, fields: &impl Fields) -> Content {
    let text = str::from_utf8(body);
    Content {
        size: signed(body.len()),
        mime_type: fields.get("content-type").map(lossy).unwrap_or_default(),
        encoding: text.is_err().then(|| "base64".to_owned()),
        text: Some(match text {
            Ok(text) => text.to_owned(),
            Err(_) => STANDARD.encode(body),
        }),
        as_sent: true,
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
