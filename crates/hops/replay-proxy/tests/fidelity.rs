//! Goal: a replayed answer is the recorded one, and what was not whole is never replayed. Method:
//! the real program between a client and an upstream that send bytes of the test; each complaint
//! that users had about such programs is a test.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc,
    thread,
};

use support::{
    Proxy, Upstream, answers, ask, field,
    processes::{WATCHDOG, until},
    split, status, upstream,
};
use tempfile::TempDir;

/// Records what `ask` asks for, and returns a proxy that replays it.
fn recorded(directory: &TempDir, upstream: &Upstream, ask: impl Fn(&Proxy)) -> Proxy {
    recorded_with(directory, upstream, &[], ask)
}

fn recorded_with(
    directory: &TempDir,
    upstream: &Upstream,
    more: &[&str],
    ask: impl Fn(&Proxy),
) -> Proxy {
    let store = directory.path().join("store");
    let proxy = Proxy::start(&store, "record", Some(upstream.address), more);
    ask(&proxy);
    proxy.stop();
    Proxy::start(&store, "replay", None, more)
}

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

/// Lists the lines of an answer, whatever the order of different fields.
fn lines_in_lower_case(answer: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = answer.split(|&byte| byte == b'\n').collect();
    lines.sort_by_key(|line| line.to_ascii_lowercase());
    lines.iter().map(|line| line.to_ascii_lowercase()).collect()
}

#[test]
fn an_answer_is_replayed_as_it_was() {
    let gzip = b"\x1f\x8b\x08\x00not really\xff\x00";
    let head =
        b"HTTP/1.1 299 All \xfcright\r\nSet-Cookie: a=1\r\nX-Odd: \xff\xfe\r\nSet-Cookie: b=2\r\n\
        Content-Encoding: gzip\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let length = format!("Content-Length: {}\r\n\r\n", gzip.len());
    let upstream = answers([head.as_slice(), length.as_bytes(), gzip].concat());
    let directory = directory();
    let live = std::cell::RefCell::new(Vec::new());
    let proxy = recorded(&directory, &upstream, |proxy| {
        *live.borrow_mut() = proxy.get("/a?b=%20", "");
    });
    let replayed = proxy.get("/a?b=%20", "");
    // The head is sent as the upstream wrote it.
    let whole = [&head[..], length.trim_end().as_bytes()].concat();
    let whole = [&whole, b"\r\nconnection: close\r\n\r\n".as_slice(), gzip].concat();
    assert_eq!(
        String::from_utf8_lossy(&replayed),
        String::from_utf8_lossy(&whole)
    );
    assert_eq!(
        lines_in_lower_case(&replayed),
        lines_in_lower_case(&live.borrow()),
        "the client can't tell the difference"
    );
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_head_recording_answers_no_get_but_a_get_recording_answers_head() {
    let upstream = upstream(|_, head, client| {
        let body = if head.starts_with("HEAD") { "" } else { "body" };
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}");
        client.write_all(text.as_bytes()).is_ok()
    });
    let directory = directory();
    let proxy = recorded(&directory, &upstream, |proxy| {
        proxy.ask("HEAD", "/head", "", b"");
        proxy.get("/get", "");
    });
    assert_eq!(status(&proxy.get("/head", "")), 502);
    let (head, body) = split(&proxy.ask("HEAD", "/head", "", b""));
    assert_eq!((field(&head, "content-length"), body.len()), ("4", 0));
    let (head, body) = split(&proxy.ask("HEAD", "/get", "", b""));
    assert_eq!((field(&head, "content-length"), body.len()), ("4", 0));
}

#[test]
fn parts_and_conditions_are_answered_only_to_those_who_ask() {
    let upstream = upstream(|_, head, client| {
        let text = if head.to_lowercase().contains("if-none-match") {
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"
        } else if head.to_lowercase().contains("range: bytes=0-1") {
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/4\r\n\
             Content-Length: 2\r\n\r\nbo"
        } else {
            "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 4\r\n\r\nbody"
        };
        client.write_all(text.as_bytes()).is_ok()
    });
    let directory = directory();
    let proxy = recorded(&directory, &upstream, |proxy| {
        proxy.get("/part", "Range: bytes=0-1\r\n");
        proxy.get("/condition", "If-None-Match: \"a\"\r\n");
        proxy.get("/whole", "");
    });
    assert_eq!(
        status(&proxy.get("/part", "")),
        502,
        "a part is not the whole"
    );
    assert_eq!(status(&proxy.get("/part", "Range: bytes=0-1\r\n")), 206);
    assert_eq!(
        status(&proxy.get("/condition", "")),
        502,
        "nobody asked whether it changed"
    );
    assert_eq!(
        status(&proxy.get("/condition", "If-None-Match: \"a\"\r\n")),
        304
    );
    let (head, body) = split(&proxy.get("/whole", "Range: bytes=-1\r\n"));
    assert_eq!(
        (field(&head, "content-range"), body.as_slice()),
        ("bytes 3-3/4", b"y".as_slice())
    );
    assert_eq!(
        status(&proxy.get("/whole", "If-None-Match: W/\"a\"\r\n")),
        304
    );
    assert_eq!(
        status(&proxy.get("/whole", "If-None-Match: \"b\"\r\n")),
        200
    );
}

#[test]
fn one_framing_is_sent_whatever_the_upstream_sent() {
    let upstream = answers(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n\r\n",
    );
    let directory = directory();
    let proxy = recorded(&directory, &upstream, |proxy| {
        proxy.get("/both", "");
    });
    let (head, body) = split(&proxy.get("/both", ""));
    assert_eq!(field(&head, "content-length"), "");
    assert_eq!(field(&head, "transfer-encoding"), "chunked");
    assert_eq!(body, b"4\r\nbody\r\n0\r\n\r\n");
}

#[test]
fn an_unknown_transfer_coding_is_not_passed_on() {
    let upstream =
        answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: arizona\r\nContent-Length: 4\r\n\r\nbody");
    let directory = directory();
    let store = directory.path().join("store");
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    assert_eq!(status(&proxy.get("/a", "")), 502);
    assert_eq!(proxy.status("answers_stored"), 0);
}

#[test]
fn what_was_cut_off_is_not_stored() {
    let upstream = upstream(|_, head, client| {
        let text = if head.contains("/chunked") {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody"
        };
        client.write_all(text.as_bytes()).ok();
        // The connection ends here.
        false
    });
    for mode in ["record", "passthrough-cache"] {
        let directory = directory();
        let store = directory.path().join("store");
        let more = ["--freshness=forever"];
        let proxy = Proxy::start(&store, mode, Some(upstream.address), &more);
        for target in ["/chunked", "/length"] {
            let answer = proxy.get(target, "");
            let is_whole = answer.ends_with(b"0\r\n\r\n") || answer.ends_with(b"bodybodyb");
            assert!(!is_whole, "a cut-off answer must not look whole");
        }
        until("both are counted", || {
            proxy.status("answers_unstored_cut") == 2
        });
        assert_eq!(
            (proxy.status("answers_stored"), proxy.status("recordings")),
            (0, 0),
            "{mode}"
        );
    }
}

#[test]
fn an_answer_whose_client_went_away_is_not_recorded() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = std::sync::Mutex::new(may_go);
    let upstream = upstream(move |_, _, client| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nfirst",
            5 + LONG
        );
        client.write_all(head.as_bytes()).ok();
        may_go.lock().expect("alone").recv().ok();
        // More than all sockets take.
        client.write_all(&vec![0; LONG]).is_ok()
    });
    let directory = directory();
    let store = directory.path().join("store");
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    let mut client = TcpStream::connect(proxy.address).expect("it listens");
    client
        .write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    let mut seen = Vec::new();
    while !seen.ends_with(b"first") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("more");
        seen.push(byte[0]);
    }
    nix::sys::socket::setsockopt(
        &client,
        nix::sys::socket::sockopt::Linger,
        &nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )
    .expect("set");
    drop(client);
    go.send(()).expect("it waits");
    until("the proxy has noticed", || {
        proxy.status("answers_unstored_cut") == 1
    });
    assert_eq!(proxy.status("recordings"), 0);
}

const LONG: usize = 64 << 20;

#[test]
fn trailers_and_the_boundaries_of_chunks_are_kept() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = std::sync::Mutex::new(may_go);
    let upstream = upstream(move |_, _, client| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
        client
            .write_all(format!("{head}3\r\none\r\n").as_bytes())
            .ok();
        may_go.lock().expect("alone").recv().ok();
        client
            .write_all(b"5\r\nthree\r\n0\r\nX-Sum: 8\r\n\r\n")
            .is_ok()
    });
    let directory = directory();
    let proxy = recorded(&directory, &upstream, |proxy| {
        let mut client = TcpStream::connect(proxy.address).expect("it listens");
        client.set_read_timeout(Some(WATCHDOG)).expect("set");
        let request =
            b"GET /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, te\r\n\r\n";
        client.write_all(request).expect("sent");
        let mut seen = Vec::new();
        // The first piece is not held back until the second one comes.
        while !seen.ends_with(b"one\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("more");
            seen.push(byte[0]);
        }
        go.send(()).expect("it waits");
        client.read_to_end(&mut seen).expect("the rest");
    });
    let answer = proxy.get("/a", "TE: trailers\r\n");
    let (_, body) = split(&answer);
    let body = String::from_utf8_lossy(&body).to_lowercase();
    assert_eq!(body, "3\r\none\r\n5\r\nthree\r\n0\r\nx-sum: 8\r\n\r\n");
}

#[test]
fn a_miss_names_the_key_and_the_nearest_recording() {
    let upstream = answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let directory = directory();
    let proxy = recorded(&directory, &upstream, |proxy| {
        proxy.get("/users/1?full=1", "");
        proxy.get("/other", "");
    });
    let (head, body) = split(&proxy.get("/users/1?full=2", ""));
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
    assert_eq!(
        String::from_utf8_lossy(&body),
        "no recording for 'GET /users/1?full=2'; the nearest is 'GET /users/1?full=1': its query \
         is 'full=1'\n"
    );
    assert_eq!(
        (proxy.status("cache_misses_total"), upstream.requests()),
        (1, 2)
    );
}

#[test]
fn bodies_count_and_redaction_does_not_break_replay() {
    let upstream = upstream(|number, _, client| {
        let body = format!("{{\"n\":{number},\"secret\":\"hush\"}}");
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nSet-Cookie: sid=hush\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(text.as_bytes()).is_ok()
    });
    let directory = directory();
    let rules = directory.path().join("rules.toml");
    let text = "[match]\nbody = 'json'\nheaders = ['authorization']\n[redact]\n\
        headers = ['authorization', 'set-cookie']\nquery = ['token']\n\
        json = ['/secret', '/pass']\n";
    std::fs::write(&rules, text).expect("written");
    let rules = format!("--rules={}", rules.display());
    let json = "Content-Type: application/json\r\n";
    let with = |token: &str| format!("{json}Authorization: Bearer {token}\r\n");
    let proxy = recorded_with(&directory, &upstream, &[&rules], |proxy| {
        proxy.ask(
            "POST",
            "/a?token=hush",
            &with("hush"),
            br#"{"a":1,"pass":"hush"}"#,
        );
        proxy.ask(
            "POST",
            "/a?token=hush",
            &with("hush"),
            br#"{"a":2,"pass":"hush"}"#,
        );
    });
    let (head, body) = split(&proxy.ask(
        "POST",
        "/a?token=hush",
        &with("hush"),
        br#"{"pass":"hush", "a":1.0}"#,
    ));
    assert_eq!(field(&head, "set-cookie"), "REDACTED");
    assert_eq!(
        String::from_utf8_lossy(&body),
        r#"{"n":0,"secret":"REDACTED"}"#
    );
    for (target, token, body) in [
        ("/a?token=other", "hush", r#"{"a":1,"pass":"hush"}"#),
        ("/a?token=hush", "other", r#"{"a":1,"pass":"hush"}"#),
        ("/a?token=hush", "hush", r#"{"a":1,"pass":"other"}"#),
    ] {
        let answer = proxy.ask("POST", target, &with(token), body.as_bytes());
        assert_eq!(status(&answer), 502, "{target} {token} {body}");
    }
    proxy.stop();
    let store = directory.path().join("store");
    for entry in std::fs::read_dir(&store)
        .expect("a store")
        .map_while(Result::ok)
    {
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).expect("readable");
            let has_secret = bytes.windows(4).any(|four| four == b"hush");
            assert!(!has_secret, "{} has a secret", entry.path().display());
        }
    }
}

#[test]
fn several_answers_to_one_request_come_in_turn() {
    let upstream = upstream(|number, _, client| {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
        client.write_all(text.as_bytes()).is_ok()
    });
    let directory = directory();
    let rules = directory.path().join("rules.toml");
    std::fs::write(&rules, "[match]\nanswers = 'sequence'").expect("written");
    let rules = format!("--rules={}", rules.display());
    let proxy = recorded_with(&directory, &upstream, &[&rules], |proxy| {
        for _ in 0..3 {
            proxy.get("/a", "");
        }
    });
    let given = || String::from_utf8_lossy(&split(&proxy.get("/a", "")).1).into_owned();
    assert_eq!([given(), given(), given(), given()], ["0", "1", "2", "2"]);
    proxy.admin("/_admin/rewind");
    assert_eq!(given(), "0");
}

#[test]
fn fifty_cold_clients_are_one_fetch_whose_answer_all_follow() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = std::sync::Mutex::new(may_go);
    let upstream = upstream(move |_, _, client| {
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";
        client.write_all(format!("{head}first").as_bytes()).ok();
        may_go.lock().expect("alone").recv().ok();
        client.write_all(b"-last").is_ok()
    });
    for freshness in ["--freshness=forever", "--freshness=rfc9111"] {
        let directory = directory();
        let store = directory.path().join("store");
        let before = upstream.requests();
        let more = [freshness];
        let proxy = Proxy::start(&store, "passthrough-cache", Some(upstream.address), &more);
        let address = proxy.address;
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let request = b"GET /cold HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                thread::spawn(move || ask(address, request))
            })
            .collect();
        until("all wait", || proxy.status("requests_coalesced") == 49);
        go.send(()).expect("it waits");
        for client in clients {
            let (_, body) = split(&client.join().expect("no panic"));
            assert_eq!(body, b"first-last");
        }
        assert_eq!(upstream.requests() - before, 1, "{freshness}");
    }
}

#[test]
fn modes_change_while_it_runs() {
    let upstream = answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let directory = directory();
    let store = directory.path().join("store");
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    proxy.get("/a", "");
    assert!(
        proxy
            .admin("/_admin/mode?mode=replay")
            .contains("\"replay\"")
    );
    assert_eq!(status(&proxy.get("/a", "")), 200);
    assert_eq!(status(&proxy.get("/b", "")), 502);
    assert!(
        proxy
            .admin("/_admin/mode?mode=other")
            .contains("expected record, replay")
    );
    assert_eq!(upstream.requests(), 1);
    assert_eq!(proxy.status("cache_hits_total"), 1);
}
