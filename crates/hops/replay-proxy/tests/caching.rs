//! Goal: passthrough-cache keeps the rules of HTTP caching where the public tests don't look, and
//! what is cached outlives the process. Method: the real program. `scripts/cache-tests.sh` runs
//! the public tests.

mod support;

use std::io::Write as _;

use support::{Proxy, Upstream, field, processes::until, split, status, upstream};
use tempfile::TempDir;

/// Answers with fields, and a body that is the number of the request.
fn numbered(fields: &'static str) -> Upstream {
    upstream(move |number, _, client| {
        let body = number.to_string();
        let length = body.len();
        let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        client.write_all(text.as_bytes()).is_ok()
    })
}

struct Cached {
    proxy: Proxy,
    upstream: Upstream,
    directory: TempDir,
}

impl Cached {
    fn start(upstream: Upstream) -> Self {
        let directory = TempDir::new().expect("a directory");
        let store = directory.path().join("store");
        let proxy = Proxy::start(&store, "passthrough-cache", Some(upstream.address), &[]);
        Self {
            proxy,
            upstream,
            directory,
        }
    }

    fn restart(self) -> Self {
        let Self {
            proxy,
            upstream,
            directory,
        } = self;
        proxy.stop();
        let store = directory.path().join("store");
        let proxy = Proxy::start(&store, "passthrough-cache", Some(upstream.address), &[]);
        Self {
            proxy,
            upstream,
            directory,
        }
    }

    /// Returns the head and the body, as text.
    fn get(&self, target: &str, fields: &str) -> (String, String) {
        let (head, body) = split(&self.proxy.get(target, fields));
        (head, String::from_utf8_lossy(&body).into_owned())
    }

    fn body(&self, target: &str, fields: &str) -> String {
        self.get(target, fields).1
    }
}

#[test]
fn what_is_cached_outlives_the_process_with_its_variants() {
    let cached = Cached::start(numbered("Cache-Control: max-age=600\r\nVary: X-Kind\r\n"));
    for (kind, expected) in [("a", "0"), ("b", "1"), ("a", "0"), ("b", "1")] {
        assert_eq!(cached.body("/p", &format!("X-Kind: {kind}\r\n")), expected);
    }
    let cached = cached.restart();
    let (head, body) = cached.get("/p", "X-Kind: b\r\n");
    assert_eq!(body, "1");
    assert!(
        field(&head, "cache-status").starts_with("replay-proxy; hit; ttl="),
        "{head}"
    );
    assert_eq!(cached.body("/p", "X-Kind: c\r\n"), "2");
    assert_eq!(cached.upstream.requests(), 3);
}

#[test]
fn a_purge_takes_all_variants() {
    let fields = "Cache-Control: max-age=600\r\nVary: X-Kind\r\nCache-Tag: t1, t2\r\n";
    for (purge, purged) in [
        ("target=/p", 2),
        ("target=test/p", 2),
        ("prefix=/", 3),
        ("prefix=test/", 3),
        ("tag=t2", 3),
        ("tag=t", 0),
        ("target=/", 0),
    ] {
        let cached = Cached::start(numbered(fields));
        for (target, kind) in [("/p", "a"), ("/p", "b"), ("/q", "a")] {
            cached.body(target, &format!("X-Kind: {kind}\r\n"));
        }
        let answer = cached.proxy.admin(&format!("/_admin/purge?{purge}"));
        assert!(
            answer.contains(&format!("{{\"purged\":{purged}}}")),
            "{purge}: {answer}"
        );
        let is_new = cached.body("/p", "X-Kind: a\r\n") == "3";
        assert_eq!(is_new, purged > 0, "{purge}");
    }
}

#[test]
fn a_stale_answer_is_validated_and_merged() {
    let upstream = upstream(|number, head, client| {
        let text = if head.to_lowercase().contains("if-none-match: \"a\"") {
            format!(
                "HTTP/1.1 304 X\r\nETag: \"a\"\r\nCache-Control: max-age=600\r\n\
                 X-N: {number}\r\n\r\n"
            )
        } else {
            "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nCache-Control: max-age=0\r\nX-N: 0\r\nX-Old: 1\r\n\
             Content-Length: 4\r\n\r\nbody"
                .to_owned()
        };
        client.write_all(text.as_bytes()).is_ok()
    });
    let cached = Cached::start(upstream);
    assert_eq!(field(&cached.get("/p", "").0, "x-n"), "0");
    for _ in 0..2 {
        let (head, body) = cached.get("/p", "");
        assert_eq!(
            (field(&head, "x-n"), field(&head, "x-old"), body.as_str()),
            ("1", "1", "body")
        );
    }
    // The merged head is what the store has, too.
    let cached = cached.restart();
    assert_eq!(field(&cached.get("/p", "").0, "x-n"), "1");
    assert_eq!(cached.upstream.requests(), 2);
}

#[test]
fn a_stale_answer_may_be_served_while_it_is_fetched_again() {
    let cached = Cached::start(numbered(
        "Cache-Control: max-age=0, stale-while-revalidate=60\r\n",
    ));
    assert_eq!(cached.body("/p", ""), "0");
    assert_eq!(cached.body("/p", ""), "0");
    until("it is fetched again", || cached.body("/p", "") != "0");
}

#[test]
fn nothing_is_shared_that_is_for_one_client() {
    for fields in [
        "Cache-Control: private, max-age=60\r\n",
        "Cache-Control: no-store\r\n",
        "Vary: *\r\nCache-Control: max-age=60\r\n",
        "",
    ] {
        let cached = Cached::start(numbered(fields));
        assert_eq!(
            [cached.body("/p", ""), cached.body("/p", "")],
            ["0", "1"],
            "{fields}"
        );
    }
    let cached = Cached::start(numbered("Cache-Control: max-age=60\r\n"));
    let secret = "Authorization: Basic x\r\n";
    assert_eq!(
        [cached.body("/p", secret), cached.body("/p", secret)],
        ["0", "1"]
    );
}

#[test]
fn a_change_forgets_what_it_may_have_changed() {
    let cached = Cached::start(numbered("Cache-Control: max-age=60\r\n"));
    assert_eq!([cached.body("/p", ""), cached.body("/p", "")], ["0", "0"]);
    assert_eq!(status(&cached.proxy.ask("DELETE", "/p", "", b"")), 200);
    assert_eq!(cached.body("/p", ""), "2");
}

#[test]
fn an_upstream_that_is_gone_is_stood_in_for() {
    let upstream = upstream(|number, _, client| {
        if number > 0 {
            return false;
        }
        let text = "HTTP/1.1 200 OK\r\nCache-Control: max-age=0\r\nETag: \"a\"\r\n\
            Content-Length: 4\r\n\r\nbody";
        client.write_all(text.as_bytes()).is_ok()
    });
    let cached = Cached::start(upstream);
    assert_eq!(cached.body("/p", ""), "body");
    let (head, body) = cached.get("/p", "");
    assert_eq!(body, "body");
    assert!(
        field(&head, "cache-status").contains("stale-if-error"),
        "{head}"
    );
    assert_eq!(status(&cached.proxy.get("/other", "")), 502);
}

#[test]
fn the_cache_is_bounded() {
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let upstream = upstream(|_, _, client| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 200000\r\n\r\n";
        client
            .write_all(&[head.as_bytes(), &[0; 200_000]].concat())
            .is_ok()
    });
    let more = ["--cache-mib=1"];
    let proxy = Proxy::start(&store, "passthrough-cache", Some(upstream.address), &more);
    for number in 0..20 {
        assert_eq!(status(&proxy.get(&format!("/{number}"), "")), 200);
    }
    until("all are counted", || proxy.status("answers_stored") == 20);
    assert!(proxy.status("cached_bytes") <= 1 << 20);
    assert!(proxy.status("evictions") >= 14);
}
