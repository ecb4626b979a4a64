//! Requests and rules of a WAF, as a hostile or careless writer makes them.

use std::sync::LazyLock;

use memchr::{memchr, memmem};

use crate::waf::{Request, Rules, Scratch, Settings, Waf};

static WAF: LazyLock<Waf> = LazyLock::new(|| {
    let settings = Settings {
        paranoia: 4,
        complete: true,
        ..Settings::default()
    };
    let rules = Rules::builtin().expect("the built-in rules");
    Waf::new(settings, rules).expect("the built-in rules fit")
});

/// Inspects a request: a line with the method and the target, fields, an empty line, and a body.
/// Returns whether it is an attack.
pub fn attack_request(bytes: &[u8]) -> bool {
    let end = memmem::find(bytes, b"\n\n").unwrap_or(bytes.len());
    let (head, body) = bytes.split_at(end);
    let body = body.get(2..).unwrap_or_default();
    let mut lines = head.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let space = memchr(b' ', first).unwrap_or(first.len());
    let headers: Vec<(&[u8], &[u8])> = lines
        .filter_map(|line| {
            let at = memchr(b':', line)?;
            Some((&line[..at], line[at + 1..].trim_ascii()))
        })
        .collect();
    let request = Request {
        method: &first[..space],
        target: first.get(space + 1..).unwrap_or_default(),
        headers: headers.iter().copied(),
        body,
    };
    let mut scratch = Scratch::default();
    let verdict = WAF.inspect(request.clone(), &mut scratch);
    // Memory that was used before changes nothing.
    assert_eq!(WAF.inspect(request, &mut scratch), verdict);
    assert_eq!(verdict.score > 0, !verdict.matches.is_empty());
    verdict.is_attack
}

/// Reads a file of rules and inspects a request by them. Returns whether they are valid.
pub fn attack_rules(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let mut rules = Rules::default();
    if let Err(error) = rules.add("own.toml", text) {
        let said = error.to_string();
        assert!(!said.contains(char::is_control), "not one line: {said}");
        return false;
    }
    let settings = Settings {
        paranoia: 4,
        ..Settings::default()
    };
    let Ok(waf) = Waf::new(settings, rules) else {
        return false;
    };
    let request = Request {
        method: b"GET",
        target: b"/a/..%2fetc?q=1%27+or+1=1--&x=<script>alert(1)</script>",
        headers: [(&b"user-agent"[..], &b"sqlmap"[..])],
        body: b"",
    };
    waf.inspect(request, &mut Scratch::default());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_judged() {
        for (text, is_attack) in [
            ("GET /", false),
            ("", false),
            ("GET /?q=1'%20or%20'1'='1", true),
            (
                "POST /\ncontent-type: application/x-www-form-urlencoded\n\n\
                 a=<script>alert(1)</script>",
                true,
            ),
        ] {
            assert_eq!(attack_request(text.as_bytes()), is_attack, "{text}");
        }
        for text in [
            "POST /\ncontent-type: application/json\n\n{\"a\":[[[[",
            "POST /\ncontent-encoding: gzip\n\n\u{1f}not gzip",
        ] {
            attack_request(text.as_bytes());
        }
        for length in (0..300).step_by(7) {
            attack_request(&vec![b'%'; length]);
        }
        attack_request(&[0xff; 4_000]);
    }

    #[test]
    fn rules_are_taken_or_refused() {
        assert!(attack_rules(b""));
        assert!(!attack_rules(b"\xff"));
        assert!(!attack_rules(b"[[rule]]\nid = 1"));
        assert!(!attack_rules(b"["));
    }
}
