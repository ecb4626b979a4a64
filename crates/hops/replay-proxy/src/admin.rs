//! The admin endpoint's own routes: the mode, purging, export.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    har,
    state::{Mode, Shared},
    store,
};

/// Makes the routes.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/_admin/mode", get(mode).post(set_mode).put(set_mode))
        .route("/_admin/export", get(export))
        .route("/_admin/purge", post(purge))
        .route("/_admin/rewind", post(rewind))
        .with_state(Arc::clone(shared))
}

/// Returns what `/_admin/status` says besides counters.
pub(crate) fn status(shared: &Shared) -> Vec<(&'static str, Value)> {
    let counters = &shared.counters;
    vec![
        ("mode", json!(shared.mode.get().name())),
        ("cache_hits_total", json!(counters.cache_hits_total.get())),
        (
            "cache_misses_total",
            json!(counters.cache_misses_total.get()),
        ),
        (
            "upstream_requests_total",
            json!(counters.upstream_requests_total.get()),
        ),
        ("recordings", json!(shared.recordings.count())),
        ("cached", json!(shared.cache.count())),
        ("cached_bytes", json!(shared.cache.bytes())),
        ("session", json!(shared.session_name)),
        (
            "recordings_memory_bytes",
            json!(shared.recordings.memory_bytes()),
        ),
    ]
}

#[derive(Deserialize)]
struct NewMode {
    mode: String,
}

async fn mode(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"mode": shared.mode.get().name()}))
}

async fn set_mode(
    State(shared): State<Arc<Shared>>,
    Query(new): Query<NewMode>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let mode = <Mode as clap::ValueEnum>::from_str(&new.mode, false).map_err(|_| {
        let text = format!(
            "'{}': expected record, replay or passthrough-cache\n",
            new.mode
        );
        (StatusCode::BAD_REQUEST, text)
    })?;
    if mode != Mode::Replay && shared.upstreams.is_none() {
        let text = format!("'{}' needs an upstream\n", new.mode);
        return Err((StatusCode::CONFLICT, text));
    }
    shared.mode.set(mode);
    Ok(Json(json!({"mode": mode.name()})))
}

async fn rewind(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.recordings.rewind();
    Json(json!({"rewound": true}))
}

/// Most bytes of an export through the admin endpoint, which makes it in memory.
const EXPORT_BYTES_MAX: usize = 256 << 20;

async fn export(State(shared): State<Arc<Shared>>) -> Result<Vec<u8>, (StatusCode, String)> {
    let failed = |error: String| (StatusCode::INTERNAL_SERVER_ERROR, error);
    let flushed = shared.writer.flush().await;
    flushed.map_err(|error| failed(error.to_string()))?;
    let exporting = tokio::task::spawn_blocking(move || export_now(&shared));
    let file = exporting.await.map_err(|error| failed(error.to_string()))?;
    file.map_err(failed)
}

fn export_now(shared: &Shared) -> Result<Vec<u8>, String> {
    let database = store::open::reading(&shared.store).map_err(|error| error.to_string())?;
    let mut file = Limited(Vec::new());
    let session = Some(shared.keeper.session);
    let exported = har::export(&shared.keeper.files, &mut file, |each| {
        store::open::each_row(&database, session, |row| {
            if row.kind == store::Kind::Recorded {
                each(row);
            }
        });
    });
    exported.map_err(|error| error.to_string())?;
    Ok(file.0)
}

/// Memory that is written to, up to a limit.
struct Limited(Vec<u8>);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > EXPORT_BYTES_MAX {
            let text = "the session is too large to be exported here: stop the proxy, and use \
                'replay-proxy export'\n";
            return Err(std::io::Error::other(text));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
struct Purge {
    target: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
}

/// Deletes cached answers: of a target (with its host: all variants), of a prefix, or of a tag.
async fn purge(
    State(shared): State<Arc<Shared>>,
    Query(purge): Query<Purge>,
) -> Result<Json<Value>, (StatusCode, String)> {
    // A key is the host and the target; either may be left out.
    let target_of = |key: &[u8]| {
        let at = memchr::memchr(b'/', key).unwrap_or(0);
        key[at..].to_vec()
    };
    let removed = match (&purge.target, &purge.prefix, &purge.tag) {
        (Some(target), None, None) => shared.cache.remove_if(|variant| {
            *variant.key == *target.as_bytes() || target_of(&variant.key) == target.as_bytes()
        }),
        (None, Some(prefix), None) => shared.cache.remove_if(|variant| {
            variant.key.starts_with(prefix.as_bytes())
                || target_of(&variant.key).starts_with(prefix.as_bytes())
        }),
        (None, None, Some(tag)) => shared.cache.remove_if(|variant| variant.tags.contains(tag)),
        _ => {
            let text = "expected one of target=, prefix= and tag=\n".to_owned();
            return Err((StatusCode::BAD_REQUEST, text));
        }
    };
    let purged = removed.len();
    shared.counters.purged.add(purged);
    shared.writer.delete(removed, Box::new(|_| {}));
    Ok(Json(json!({"purged": purged})))
}
