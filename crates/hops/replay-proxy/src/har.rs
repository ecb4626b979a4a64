//! HAR files: what other tools read and write.

mod export;
mod import;

pub(crate) use self::{export::export, import::import};

/// Fields of the file format, as far as they are written or read. What begins with an underscore is
/// this program's own: other tools ignore it.
mod wire {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Deserialize)]
    #[serde(expecting = "an object with 'log'")]
    pub(super) struct File {
        pub(super) log: Log,
    }

    #[derive(Debug, Deserialize)]
    pub(super) struct Log {
        pub(super) entries: Vec<Entry>,
    }

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Entry {
        #[serde(default)]
        pub(super) started_date_time: String,
        #[serde(default)]
        pub(super) time: f64,
        pub(super) request: Request,
        pub(super) response: Response,
        #[serde(default)]
        pub(super) cache: serde_json::Value,
        #[serde(default)]
        pub(super) timings: serde_json::Value,
    }

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Request {
        pub(super) method: String,
        pub(super) url: String,
        #[serde(default)]
        pub(super) http_version: String,
        #[serde(default)]
        pub(super) headers: Vec<Header>,
        #[serde(default, skip_deserializing)]
        pub(super) query_string: Vec<Header>,
        #[serde(default, skip_deserializing)]
        pub(super) cookies: Vec<Header>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(super) post_data: Option<Content>,
        #[serde(default, skip_deserializing)]
        pub(super) headers_size: i64,
        #[serde(default, skip_deserializing)]
        pub(super) body_size: i64,
    }

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Response {
        pub(super) status: i64,
        #[serde(default)]
        pub(super) status_text: String,
        #[serde(default)]
        pub(super) http_version: String,
        #[serde(default)]
        pub(super) headers: Vec<Header>,
        #[serde(default, skip_deserializing)]
        pub(super) cookies: Vec<Header>,
        #[serde(default)]
        pub(super) content: Content,
        #[serde(default, rename = "redirectURL", skip_deserializing)]
        pub(super) redirect_url: String,
        #[serde(default, skip_deserializing)]
        pub(super) headers_size: i64,
        #[serde(default, skip_deserializing)]
        pub(super) body_size: i64,
        /// How the body came.
        #[serde(default, rename = "_framing", skip_serializing_if = "Option::is_none")]
        pub(super) framing: Option<u8>,
        /// The head, base64, if other fields can't say it: a reason or a value that isn't UTF-8.
        #[serde(default, rename = "_head", skip_serializing_if = "Option::is_none")]
        pub(super) head: Option<String>,
        /// The trailers, base64.
        #[serde(default, rename = "_trailers", skip_serializing_if = "Option::is_none")]
        pub(super) trailers: Option<String>,
        /// When the pieces of the body came, base64.
        #[serde(default, rename = "_timing", skip_serializing_if = "Option::is_none")]
        pub(super) timing: Option<String>,
    }

    #[derive(Debug, Deserialize, Serialize)]
    pub(super) struct Header {
        pub(super) name: String,
        #[serde(default)]
        pub(super) value: String,
    }

    #[derive(Debug, Default, Deserialize, Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Content {
        #[serde(default)]
        pub(super) size: i64,
        #[serde(default)]
        pub(super) mime_type: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(super) text: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(super) encoding: Option<String>,
        /// Whether the text is the body as it was sent. Browsers write it decompressed.
        #[serde(
            default,
            rename = "_asSent",
            skip_serializing_if = "std::ops::Not::not"
        )]
        pub(super) as_sent: bool,
    }
}
