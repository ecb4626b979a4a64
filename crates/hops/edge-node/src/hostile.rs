//! Texts and messages as a hostile or careless writer makes them. Whatever they say, nothing
//! panics.

mod waf;

use std::sync::Arc;

use crate::{
    crdt::{
        ActorId, Exchange, Store,
        wire::{Codec, WireError},
    },
    path,
    routes::{Path, Route, Table},
};

pub use self::waf::{attack_request, attack_rules};

/// Most routes that are compiled of one text.
const ROUTES_MAX: usize = 64;

/// Compiles routes and looks paths up. Each line is a route, `kind host method path`, with `-` for
/// any host or method; a line `? host method path` is looked up. Returns whether the routes are
/// valid.
pub fn attack_routes(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let mut routes = Vec::new();
    let mut asked = vec![("example.com", "GET", "/"), ("", "", "")];
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (kind, host, method, path) = (word(), word(), word(), word());
        asked.push((host, method, path));
        if let Some(route) = route(kind, host, method, path)
            && routes.len() < ROUTES_MAX
        {
            routes.push(Route {
                target: routes.len(),
                ..route
            });
        }
    }
    let count = routes.len();
    let table = match Table::compile(routes) {
        Ok(table) => table,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(char::is_control), "not one line: {said}");
            assert!(error.index <= count);
            return false;
        }
    };
    let mut scratch = String::new();
    for (host, method, asked) in asked {
        let path = path::routed(asked, &mut scratch);
        let found = table.find(host, method, path);
        assert!(found.is_none_or(|found| found.index == *found.target));
    }
    true
}

fn route(kind: &str, host: &str, method: &str, path: &str) -> Option<Route<usize>> {
    let path = path.to_owned();
    Some(Route {
        path: match kind {
            "exact" => Path::Exact(path),
            "prefix" => Path::Prefix(path),
            "wildcard" => Path::Wildcard(path),
            "regex" => Path::Regex(path),
            _ => return None,
        },
        host: (host != "-").then(|| host.to_owned()),
        methods: match method {
            "-" => Vec::new(),
            methods => methods.split(',').map(str::to_owned).collect(),
        },
        priority: 0,
        target: 0,
    })
}

/// Reads a message of a peer, and takes it. Returns whether it can be read.
pub fn attack_exchange(content: &[u8]) -> bool {
    const NOW_MS: u64 = 1_000_000_000;
    let codec = Codec::new(b"");
    assert!(codec.decode(content) != Err(WireError::Tag) || content.len() >= 16);
    // With a good beginning and a good tag, the content is read.
    let mut bytes = b"EDGC\x01".to_vec();
    bytes.extend_from_slice(content);
    codec.sign(&mut bytes);
    let Ok(message) = codec.decode(&bytes) else {
        return false;
    };
    let (again, written) = codec.encode(&message);
    if written == message.items.len() {
        assert_eq!(codec.decode(&again).as_ref(), Ok(&message));
    }
    let store = Arc::new(Store::new(ActorId::from_bytes([7; 16]), 1_000));
    let exchange = Exchange::new(Arc::clone(&store), codec, 1);
    for _ in 0..2 {
        if exchange.answer(&bytes, NOW_MS).is_ok() {
            // What was taken once changes nothing when it comes again.
            assert_eq!(store.apply(&message.items, NOW_MS).grew, 0);
        }
    }
    store.expire(u64::MAX);
    assert_eq!(store.counts().keyed, 0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::{Item, Kind, Slot, Totals, wire::Message};

    #[test]
    fn routes_are_taken_or_refused() {
        for (text, is_valid) in [
            (
                "exact - - /a\nprefix *.example.com GET /b\nregex - - ^/c\\d+$",
                true,
            ),
            (
                "wildcard example.com GET,POST /a/*/b/**\n? example.com GET /a/x/b/",
                true,
            ),
            ("? \u{ff} \u{ff} \u{ff}", true),
            ("exact - - ", false),
            ("exact - - a", false),
            ("exact - - /a\nexact - - /a", false),
            ("regex - - (", false),
            ("regex - - (((a{1000}){1000}){1000})", false),
            ("wildcard - - /a**", false),
            ("exact example.com:80 - /", false),
            ("exact - G\u{1}T /", false),
            (&format!("regex - - \u{12}{}", "a".repeat(5_000)), false),
        ] {
            assert_eq!(attack_routes(text.as_bytes()), is_valid, "{text}");
        }
        assert!(!attack_routes(b"\xff"));
    }

    #[test]
    fn messages_are_taken_or_refused() {
        assert!(!attack_exchange(b""));
        assert!(!attack_exchange(&[0xff; 300]));
        let slot = |key, length_ms| Slot::at(key, length_ms, 1_000_000_000);
        let most = Totals {
            ups: 1 << 48,
            downs: 1 << 48,
        };
        let items = (0..9u8).map(|byte| Item {
            slot: slot(byte.into(), 100 << byte),
            kind: [Kind::Keyed, Kind::Shared][usize::from(byte % 2)],
            state: [7, byte]
                .map(|byte| (ActorId::from_bytes([byte; 16]), most))
                .into_iter()
                .collect(),
        });
        let message = Message {
            from: ActorId::from_bytes([1; 16]),
            ack: Some((ActorId::from_bytes([7; 16]), u64::MAX)),
            since: 0,
            upto: u64::MAX,
            more: true,
            items: items.collect(),
        };
        let (bytes, _) = Codec::new(b"").encode(&message);
        assert!(attack_exchange(&bytes[5..bytes.len() - 16]));
        for end in 5..bytes.len() - 16 {
            attack_exchange(&bytes[5..end]);
        }
    }
}
