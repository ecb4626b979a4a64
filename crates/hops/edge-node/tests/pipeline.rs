//! Goal: each stage does its work, on requests that hyper reads and on those that it doesn't.
//! Method: the real program between a client and upstreams of the test.

mod support;

use std::io::Write as _;

use support::{Node, answers, field, processes::text, split, status, to, upstream};

const PLAIN: &str = "";

/// hyper reads a request that says what it takes, and answers what follows it.
const SPECIAL: &str = "TE: trailers\r\n";

fn hello() -> support::Upstream {
    answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

#[test]
fn without_stages_everything_is_forwarded() {
    let origin = upstream(|_, head, client| {
        let told = field(head, "x-forwarded-for").to_owned();
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}",
            told.len()
        );
        client.write_all(text.as_bytes()).is_ok()
    });
    let node = Node::start(&to("app", origin.address));
    for fields in [PLAIN, SPECIAL] {
        let answer = node.get("/a?q=%27+or+1=1", fields);
        assert_eq!(status(&answer), 200);
        assert_eq!(split(&answer).1, b"127.0.0.1");
    }
    node.stop();
}

#[test]
fn a_route_takes_host_method_and_path() {
    let (first, second) = (
        answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"),
        answers("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"),
    );
    let config = to("first", first.address)
        + &to("second", second.address)
        + "[[route]]\nname = 'a'\nkind = 'prefix'\npath = '/api'\nupstream = 'first'\n\
           [[route]]\nname = 'b'\nkind = 'wildcard'\npath = '/users/*/files/**'\n\
           upstream = 'second'\nmethods = ['GET']\n\
           [[route]]\nname = 'c'\nkind = 'regex'\npath = '^/v[0-9]+/x$'\nupstream = 'second'\n\
           [[route]]\nname = 'd'\nkind = 'exact'\npath = '/own'\nhost = '*.example.com'\n\
           upstream = 'first'\n";
    let node = Node::start(&config);
    for fields in [PLAIN, SPECIAL] {
        for (target, body) in [
            ("/api", "first"),
            ("/api/x?y", "first"),
            ("/%61pi/../api/z", "first"),
            ("/users/7/files/a/b", "second"),
            ("/v12/x", "second"),
        ] {
            let answer = node.get(target, fields);
            assert_eq!(split(&answer).1, body.as_bytes(), "{target}");
        }
        for target in [
            "/",
            "/apis",
            "/users//files/a",
            "/v1/xy",
            "/own",
            "/api/../other",
        ] {
            assert_eq!(status(&node.get(target, fields)), 404, "{target}");
        }
        assert_eq!(
            status(&node.ask("POST", "/users/7/files/a", fields, b"x")),
            404
        );
    }
    assert_eq!(node.status("edge_requests_unrouted"), 14);
    node.stop();
}

#[test]
fn attacks_are_refused_wherever_they_are() {
    let origin = hello();
    let config = to("app", origin.address)
        + "[waf]\n[[route]]\nname = 'open'\nkind = 'prefix'\npath = '/open'\nwaf = false\n\
           [[route]]\nname = 'rest'\nkind = 'prefix'\npath = '/'\n";
    let node = Node::start(&config);
    let attack = "q=1%27%20OR%20%271%27=%271";
    let chunked = format!(
        "Transfer-Encoding: chunked\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n\
         {:x}\r\n{attack}\r\n0\r\n",
        attack.len()
    );
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for fields in [PLAIN, SPECIAL] {
        assert_eq!(status(&node.get("/?q=it's", fields)), 200);
        let refused = node.get(&format!("/?{attack}"), fields);
        assert_eq!(
            (status(&refused), origin.requests()),
            (403, origin.requests())
        );
        let answer = node.ask("POST", "/", &format!("{fields}{form}"), attack.as_bytes());
        assert_eq!(status(&answer), 403);
        assert_eq!(status(&node.get(&format!("/open?{attack}"), fields)), 200);
        assert_eq!(
            status(&node.get(&format!("/nowhere/../open?{attack}"), fields)),
            200
        );
    }
    let long = vec![b'a'; 200_000];
    assert_eq!(status(&node.ask("POST", "/open", SPECIAL, &long)), 200);
    assert_eq!(status(&node.ask("POST", "/", &chunked, b"")), 403);
    assert_eq!(status(&node.ask("POST", "/", SPECIAL, &long)), 413);
    assert_eq!(node.status("edge_waf_blocked"), 5);
    let logged = node.stop();
    assert!(logged.contains("attack refused: 127.0.0.1 GET"), "{logged}");
}

#[test]
fn an_attack_may_be_seen_and_passed() {
    let origin = hello();
    let config = to("app", origin.address) + "[waf]\nmode = 'detect'\n";
    let node = Node::start(&config);
    for fields in [PLAIN, SPECIAL] {
        assert_eq!(
            status(&node.get("/?q=1%27%20OR%20%271%27=%271", fields)),
            200
        );
    }
    assert_eq!(node.status("edge_waf_attacks"), 2);
    assert_eq!(node.status("edge_waf_blocked"), 0);
    assert!(node.stop().contains("attack seen"));
}

#[test]
fn a_client_has_a_limit() {
    let origin = hello();
    let config =
        to("app", origin.address) + "[[limit]]\nname = 'few'\nrequests = 5\nwindow-ms = 3600000\n";
    let node = Node::start(&config);
    for number in 0..8 {
        let answer = node.get("/", if number % 2 == 0 { PLAIN } else { SPECIAL });
        let (head, _) = split(&answer);
        if number < 5 {
            assert_eq!(status(&answer), 200);
        } else {
            assert_eq!(status(&answer), 429, "{head}");
            let seconds: u64 = field(&head, "retry-after").parse().expect("seconds");
            assert!((1..=7_200).contains(&seconds), "{seconds}");
        }
    }
    assert_eq!(
        (node.status("edge_requests_limited"), origin.requests()),
        (3, 5)
    );
    node.stop();
}

#[test]
fn answers_that_may_be_kept_are_fetched_once() {
    let origin = upstream(|number, head, client| {
        let fields = match head.split(' ').nth(1).expect("a target") {
            "/kept" => "Cache-Control: max-age=60\r\n",
            "/varied" => "Cache-Control: max-age=60\r\nVary: X-Tenant\r\n",
            "/private" => "Cache-Control: private, max-age=60\r\n",
            _ => "",
        };
        let body = number.to_string();
        let length = body.len();
        let text = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        client.write_all(text.as_bytes()).is_ok()
    });
    let node = Node::start(&(to("app", origin.address) + "[cache]\n"));
    let body = |answer: Vec<u8>| text(&split(&answer).1);
    let first = body(node.get("/kept", PLAIN));
    for fields in [PLAIN, SPECIAL] {
        let answer = node.get("/kept", fields);
        assert!(field(&split(&answer).0, "cache-status").starts_with("edge-node; hit"));
        assert!(!field(&split(&answer).0, "date").is_empty());
        assert_eq!(body(answer), first);
    }
    assert_eq!(split(&node.ask("HEAD", "/kept", PLAIN, b"")).1, b"");
    let varied = body(node.get("/varied", "X-Tenant: a\r\n"));
    assert_eq!(body(node.get("/varied", "X-Tenant: a\r\n")), varied);
    assert_ne!(body(node.get("/varied", "X-Tenant: b\r\n")), varied);
    for target in ["/private", "/none"] {
        assert_ne!(body(node.get(target, PLAIN)), body(node.get(target, PLAIN)));
    }
    // What changes it, takes it out.
    for fields in [PLAIN, SPECIAL] {
        let before = body(node.get("/kept", PLAIN));
        assert_eq!(status(&node.ask("POST", "/kept", fields, b"x")), 200);
        assert_ne!(body(node.get("/kept", PLAIN)), before);
    }
    node.stop();
}

#[test]
fn only_who_has_a_token_is_served_and_old_tokens_end_with_a_reload() {
    let origin = hello();
    let directory = tempfile::TempDir::new().expect("a directory");
    let write = |token: &str| {
        std::fs::write(directory.path().join("client"), token).expect("writable");
    };
    write("first-token-of-client");
    let config = format!(
        "{}[tokens]\ndirectory = '{}'\n\
         [[route]]\nname = 'open'\nkind = 'exact'\npath = '/open'\ntokens = false\n\
         [[route]]\nname = 'all'\nkind = 'prefix'\npath = '/'\n",
        to("app", origin.address),
        directory.path().display()
    );
    let node = Node::start(&config);
    let statuses = || {
        let with = |token: &str| format!("Authorization: Bearer {token}\r\n");
        let all = ["first-token-of-client", "other-token-of-client"].map(with);
        [PLAIN, SPECIAL].map(|kind| {
            [
                status(&node.get("/", kind)),
                status(&node.get("/open", kind)),
                status(&node.get("/", &(all[0].clone() + kind))),
                status(&node.get("/", &(all[1].clone() + kind))),
            ]
        })
    };
    assert_eq!(statuses(), [[401, 200, 200, 401]; 2]);
    let (head, _) = split(&node.get("/", SPECIAL));
    assert_eq!(field(&head, "www-authenticate"), "Bearer");
    for target in ["/a/../open", "/%6fpen", "//open", "/./open"] {
        for kind in [PLAIN, SPECIAL] {
            assert_eq!(status(&node.get(target, kind)), 401, "{target}");
        }
    }
    assert_eq!(node.status("edge_requests_unauthorised"), 13);
    write("other-token-of-client");
    node.reload(&config);
    assert_eq!(statuses(), [[401, 200, 401, 200]; 2]);
    // A file that is wrong changes nothing.
    write("short");
    node.reload(&config);
    assert_eq!(statuses(), [[401, 200, 401, 200]; 2]);
    assert_eq!(node.status("edge_reloads_refused"), 1);
    node.stop();
}
