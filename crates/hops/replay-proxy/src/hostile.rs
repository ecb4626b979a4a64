//! Files and fields as a hostile or careless writer makes them. Whatever they say, nothing panics.

use rusqlite::{Connection, types::Value as SqlValue};
use serde_json::Value;

use crate::{
    cache::{control::Directives, policy::Policy, vary::Vary},
    har,
    head::Head,
    json,
    keep::Keeper,
    key::Keys,
    received::Received,
    rules::Rules,
    store::{Files, rows},
    stored::{Framing, Stored},
};

/// Reads the head of an answer, and how it may be cached. Returns whether it is a head.
pub fn attack_fields(bytes: &[u8]) -> bool {
    let Ok(head) = Head::parse(bytes.to_vec().into()) else {
        return false;
    };
    // What was read is read again the same.
    assert_eq!(Head::parse(head.bytes().clone()).as_ref(), Ok(&head));
    let request = vec![(b"accept".to_vec(), bytes.to_vec())];
    let directives = Directives::read(&head);
    let vary = Vary::of(&head, &request);
    assert!(vary.matches(&request), "a request matches itself");
    assert_eq!(Vary::of(&head, &vary.pairs()), vary);
    let received = Received {
        head: head.clone(),
        framing: Framing::Length,
        requested_ms: i64::MIN / 4,
        received_ms: i64::MAX / 4,
    };
    let policy = Policy::new(&directives, &received);
    for now_ms in [i64::MIN / 4, 0, i64::MAX / 4] {
        policy.may_use(&directives, now_ms);
        policy.may_use_meanwhile(&directives, now_ms);
        policy.may_use_after_error(now_ms, true);
    }
    Stored::new(head, Framing::Length, "body".into());
    true
}

/// Reads a HAR file. Returns whether it is one.
pub fn attack_har(bytes: &[u8]) -> bool {
    let store = std::env::temp_dir().join(format!("replay-proxy-hostile-{}", std::process::id()));
    let Ok(files) = Files::open(&store, false) else {
        return false;
    };
    let keeper = Keeper::new(Keys::new(Rules::default(), [0; 32]), files, 1, 1);
    har::import(bytes, &keeper).is_ok()
}

/// Reads JSON, and follows pointers into it. Returns whether it is JSON.
pub fn attack_json(bytes: &[u8]) -> bool {
    let (pointer, text) = bytes.split_at(bytes.len().min(8));
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return false;
    };
    let mut first = String::new();
    json::canonical(&value, &mut first);
    // The text is JSON, and its own canonical form.
    let again: Value = serde_json::from_str(&first).expect("canonical JSON is JSON");
    let mut second = String::new();
    json::canonical(&again, &mut second);
    assert_eq!(first, second);
    let pointer = format!("/{}", String::from_utf8_lossy(pointer));
    json::each(&mut value, &pointer, &mut |value| *value = Value::Null);
    true
}

/// Reads a row with values of any type. Returns whether it can be used.
pub fn attack_row(bytes: &[u8]) -> bool {
    let Ok(database) = Connection::open_in_memory() else {
        return false;
    };
    let mut values: Vec<SqlValue> = Vec::new();
    let mut rest = bytes;
    while values.len() < 19 {
        let Some((&kind, after)) = rest.split_first() else {
            values.push(SqlValue::Null);
            continue;
        };
        let length = usize::from(kind >> 2).min(after.len());
        let (value, after) = after.split_at(length);
        rest = after;
        values.push(match kind & 3 {
            0 => SqlValue::Null,
            1 => {
                let number = value.iter().fold(0_i64, |all, &byte| {
                    all.wrapping_mul(256).wrapping_add(i64::from(byte))
                });
                SqlValue::Integer(number)
            }
            2 => SqlValue::Blob(value.to_vec()),
            _ => SqlValue::Text(String::from_utf8_lossy(value).into_owned()),
        });
    }
    let places = vec!["?"; values.len()].join(",");
    let query = format!("SELECT {places}");
    let read = database.query_row(&query, rusqlite::params_from_iter(values), |row| {
        Ok(rows::read(row).is_ok())
    });
    read.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_seeds_are_taken_or_refused() {
        assert!(attack_fields(
            b"HTTP/1.1 200 OK\r\nVary: Accept\r\nCache-Control: max-age=1\r\n"
        ));
        assert!(!attack_fields(b"HTTP/1.1"));
        assert!(attack_har(b"{\"log\":{\"entries\":[]}}"));
        assert!(!attack_har(b"{\"log\":[]}"));
        assert!(attack_json(b"xxxxxxxx{\"b\":1e3,\"a\":[null]}"));
        assert!(!attack_row(b""));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            attack_fields(&bytes);
            attack_fields(&[b"HTTP/1.1 200 OK\r\nVary: ", bytes.as_slice()].concat());
            attack_fields(&[b"HTTP/1.1 200 OK\r\nCache-Control: ", bytes.as_slice()].concat());
            attack_json(&bytes);
            attack_row(&bytes);
        }

        #[test]
        fn numbers_have_one_text(number in any::<f64>().prop_filter("JSON", |it| it.is_finite())) {
            attack_json(format!("xxxxxxxx[{number:e},{number}]").as_bytes());
        }
    }
}
