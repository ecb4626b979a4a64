//! Goal: recordings travel as HAR files without loss, and files of other tools are understood or
//! refused by name. Method: the real program's commands.

mod support;

use std::{fs, io::Write as _, path::Path};

use support::{
    Proxy,
    processes::{bin, command, output, text},
    split, status, upstream,
};
use tempfile::TempDir;

fn run(arguments: &[&str]) -> (bool, String) {
    let output = output(command(bin("replay-proxy")).args(arguments));
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.success(), said)
}

fn import(directory: &Path, har: &str) -> (bool, String) {
    let file = directory.join("in.har");
    fs::write(&file, har).expect("written");
    let store = format!("--store={}", directory.join("imported").display());
    run(&["import", &store, &file.display().to_string()])
}

#[test]
fn an_export_that_is_imported_replays_the_same() {
    let upstream = upstream(|_, head, client| {
        let answer: &[u8] = if head.contains("/binary") {
            b"HTTP/1.1 200 \xfcber\r\nX: \xff\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\
              \r\n\x1f\x8b\0\xff"
        } else if head.contains("/chunked") {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n2\r\ntw\r\n0\r\n\r\n"
        } else {
            b"HTTP/1.1 201 Made\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok"
        };
        client.write_all(answer).is_ok()
    });
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let asked = |proxy: &Proxy| {
        [
            proxy.get("/binary?a=1", ""),
            proxy.get("/chunked", ""),
            proxy.ask("POST", "/form", "", b"x=1"),
        ]
    };
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    asked(&proxy);
    proxy.stop();
    let proxy = Proxy::start(&store, "replay", None, &[]);
    let expected = asked(&proxy);
    proxy.stop();
    let file = directory.path().join("out.har").display().to_string();
    let (ok, said) = run(&["export", &format!("--store={}", store.display()), &file]);
    assert!(ok && said.contains("3 exchanges written"), "{said}");
    let (ok, said) = import(directory.path(), &fs::read_to_string(&file).expect("text"));
    assert!(ok && said.contains("3 exchanges imported"), "{said}");
    let proxy = Proxy::start(&directory.path().join("imported"), "replay", None, &[]);
    // hyper adds a date to what has none.
    let without_date = |answers: [Vec<u8>; 3]| {
        answers.map(|answer| {
            let text: String = answer.iter().map(|&byte| char::from(byte)).collect();
            let lines = text.split("\r\n").filter(|line| !line.starts_with("date:"));
            lines.collect::<Vec<_>>().join("\r\n")
        })
    };
    assert_eq!(without_date(asked(&proxy)), without_date(expected));
}

#[test]
fn files_of_other_tools_are_understood() {
    let har = "\u{feff}{\"log\":{\"entries\":[\
        {\"request\":{\"method\":\"GET\",\"url\":\"https://a.example/page?x=1#top\"},\
         \"response\":{\"status\":200,\"statusText\":\"OK\",\"headers\":[\
           {\"name\":\"content-encoding\",\"value\":\"gzip\"},\
           {\"name\":\":status\",\"value\":\"200\"},\
           {\"name\":\"Content-Length\",\"value\":\"99\"},\
           {\"name\":\"set-cookie\",\"value\":\"a\\nb\"}],\
         \"content\":{\"size\":5,\"text\":\"aGVsbG8=\",\"encoding\":\"base64\"}}},\
        {\"request\":{\"method\":\"GET\",\"url\":\"http://a.example/none\"},\
         \"response\":{\"status\":200,\"content\":{\"size\":10}}},\
        {\"request\":{\"method\":\"GET\",\"url\":\"http://a.example/gone\"},\"response\":{\"status\":0}}]}}";
    let directory = TempDir::new().expect("a directory");
    let (ok, said) = import(directory.path(), har);
    assert!(ok, "{said}");
    let expected = "2 exchanges imported into session 'default'; 1 without an answer left out; \
        1 without the body that they had";
    assert!(said.contains(expected), "{said}");
    let proxy = Proxy::start(&directory.path().join("imported"), "replay", None, &[]);
    let (head, body) = split(&proxy.get("/page?x=1", ""));
    assert!(
        !head.contains("gzip") && head.contains("content-length: 5"),
        "{head}"
    );
    assert_eq!(head.matches("set-cookie").count(), 2, "{head}");
    assert_eq!(body, b"hello");
    assert_eq!(status(&proxy.get("/none", "")), 200);
}

#[test]
fn what_is_broken_is_named_and_nothing_of_it_is_imported() {
    let directory = TempDir::new().expect("a directory");
    let entry = |request: &str, response: &str| {
        format!("{{\"log\":{{\"entries\":[{{\"request\":{request},\n\"response\":{response}}}]}}}}")
    };
    let request = "{\"method\":\"GET\",\"url\":\"http://a/\"}";
    for (har, said) in [
        ("{\"log\":".to_owned(), "line 1 column 7"),
        ("{\"log\":{}}".to_owned(), "missing field `entries`"),
        (
            entry(request, "{}"),
            "missing field `status` at line 2 column",
        ),
        (
            entry(request, "{\"status\":2000}"),
            "log.entries[0]: 'response.status': '2000'",
        ),
        (
            entry("{\"method\":\"G T\",\"url\":\"/\"}", "{\"status\":200}"),
            "'request.method': 'G T'",
        ),
        (
            entry("{\"method\":\"GET\",\"url\":\"x\"}", "{\"status\":200}"),
            "'request.url': 'x'",
        ),
        (
            entry(
                request,
                "{\"status\":200,\"content\":{\"text\":\"!\",\"encoding\":\"base64\"}}",
            ),
            "'response.content.text': base64",
        ),
        (
            entry(
                request,
                "{\"status\":200,\"headers\":[{\"name\":\"a b\",\"value\":\"\"}]}",
            ),
            "'response.headers': 'a b'",
        ),
        (
            entry(request, "{\"status\":200},\"startedDateTime\":\"noon\""),
            "'startedDateTime': 'noon'",
        ),
    ] {
        let (ok, printed) = import(directory.path(), &har);
        assert!(!ok && printed.contains(said), "{har}: {printed}");
    }
    let store = format!("--store={}", directory.path().join("imported").display());
    let (_, listed) = run(&["list", &store]);
    assert!(
        listed.contains("session 'default': 0 recordings"),
        "{listed}"
    );
}

#[test]
fn a_store_can_be_listed_shown_pruned_and_purged() {
    let upstream = upstream(|number, _, client| {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
        client.write_all(text.as_bytes()).is_ok()
    });
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let proxy = Proxy::start(
        &store,
        "record",
        Some(upstream.address),
        &["--session=first"],
    );
    for target in ["/a/1", "/a/1", "/b"] {
        proxy.get(target, "");
    }
    proxy.stop();
    let argument = format!("--store={}", store.display());
    let (_, listed) = run(&["list", &argument]);
    assert!(listed.contains("session 'first': 3 recordings"), "{listed}");
    assert!(
        listed.contains("2\tfirst\tGET /a/1\t200\t1 bytes"),
        "{listed}"
    );
    let (_, shown) = run(&["show", &argument, "2"]);
    assert!(
        shown.starts_with("GET /a/1 HTTP/1.1\r\nHost: test\r\n"),
        "{shown}"
    );
    assert!(shown.ends_with("Content-Length: 1\r\n\r\n1"), "{shown}");
    let (_, said) = run(&["prune", &argument]);
    assert!(said.contains("1 deleted"), "{said}");
    let (_, said) = run(&["purge", &argument, "--prefix=/a/"]);
    assert!(said.contains("1 deleted"), "{said}");
    let (_, listed) = run(&["list", &argument]);
    assert!(
        listed.contains("GET /b") && !listed.contains("/a/"),
        "{listed}"
    );
}
