//! Finds the recording that answers a request. Works without hyper and without waiting.

use std::cell::RefCell;

use crate::{
    fields::{Asked, Fields},
    keep::subset,
    key::{self, BodyKey, Keys},
    recordings::{Found, Recordings},
};

thread_local! {
    /// Memory for keys, so that a look-up needs none of its own.
    static KEY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Finds the recording of a request. One for HEAD may be answered by one for GET.
pub fn find<F: Fields + ?Sized>(
    keys: &Keys,
    recordings: &Recordings,
    asked: &Asked<'_, F>,
    body: Option<&BodyKey>,
) -> Found {
    KEY.with_borrow_mut(|key| {
        keys.write(asked, body, key);
        let pairs = subset(keys, &asked.path_and_query().1);
        let plain = key.len();
        for status in [206, 304] {
            Keys::set_apart(status, asked.fields, key);
            if key.len() > plain {
                let found = recordings.find(key, &pairs);
                if !matches!(found, Found::Nothing) {
                    return found;
                }
                key.truncate(plain);
            }
        }
        let found = recordings.find(key, &pairs);
        if asked.method == "HEAD" && matches!(found, Found::Nothing) {
            key.splice(..asked.method.len(), *b"GET");
            return recordings.find(key, &pairs);
        }
        found
    })
}

/// Says why a request has no recording: its key, and the recording that is nearest.
pub fn explain<F: Fields + ?Sized>(
    keys: &Keys,
    recordings: &Recordings,
    asked: &Asked<'_, F>,
    body: Option<&BodyKey>,
) -> String {
    let mut key = Vec::new();
    keys.write(asked, body, &mut key);
    let mut nearest: Option<(usize, String, Vec<u8>)> = None;
    recordings.each_key(|other| {
        let (distance, how) = key::difference(&key, other);
        if nearest.as_ref().is_none_or(|nearest| distance < nearest.0) {
            nearest = Some((distance, how, other.to_vec()));
        }
    });
    let asked = key::show(&key);
    match nearest {
        None => format!("no recording for '{asked}': there are none at all"),
        Some((_, how, other)) if how.is_empty() => {
            format!(
                "no recording for '{asked}': '{}' needs other parameters",
                key::show(&other)
            )
        }
        Some((_, how, other)) => {
            format!(
                "no recording for '{asked}'; the nearest is '{}': {how}",
                key::show(&other)
            )
        }
    }
}
