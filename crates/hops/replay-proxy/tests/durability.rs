//! Goal: what a client saw complete is in the store, whatever happens; and a store that is damaged
//! is used as far as it goes. Method: real programs that are killed, and files that are changed.

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use support::{
    Proxy, answers,
    processes::{WATCHDOG, bin, command, output, text, until},
    split, status, upstream,
};
use tempfile::TempDir;

/// Kills per test; `REPLAY_KILLS` sets another number.
fn kills() -> usize {
    let number = std::env::var("REPLAY_KILLS")
        .ok()
        .and_then(|text| text.parse().ok());
    number.unwrap_or(12)
}

/// Asks on one connection for targets that nobody else asks for, until the connection breaks. Notes
/// each target whose answer came whole.
fn ask_until_broken(address: SocketAddr, next: &AtomicUsize, seen: &Mutex<Vec<usize>>) {
    let Ok(client) = TcpStream::connect(address) else {
        return;
    };
    client.set_read_timeout(Some(WATCHDOG)).expect("set");
    let mut reader = BufReader::new(client.try_clone().expect("a socket"));
    let mut client = client;
    loop {
        let number = next.fetch_add(1, SeqCst);
        let request = format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        if client.write_all(request.as_bytes()).is_err() {
            return;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(1..) => {}
                _ => return,
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        assert!(body == self::body(number), "{number}: another body");
        seen.lock().expect("no panic").push(number);
    }
}

/// The body of a target. Every eighth is long enough for a file of its own.
fn body(number: usize) -> Vec<u8> {
    let length = if number.is_multiple_of(8) {
        50_000
    } else {
        20 + number % 500
    };
    format!("{number} ").bytes().cycle().take(length).collect()
}

#[test]
fn a_killed_recorder_has_all_that_a_client_saw_complete() {
    let upstream = upstream(|_, head, client| {
        let target = head.split(' ').nth(1).expect("a target");
        let body = body(target.trim_start_matches('/').parse().expect("a number"));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(&[head.as_bytes(), &body].concat()).is_ok()
    });
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let next = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    for round in 0..kills() {
        let mut proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
        let before = seen.lock().expect("no panic").len();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (next, seen) = (Arc::clone(&next), Arc::clone(&seen));
                let address = proxy.address;
                thread::spawn(move || ask_until_broken(address, &next, &seen))
            })
            .collect();
        // Another moment in every round.
        let enough = 5 + (round * 37) % 100;
        until("answers come", || {
            seen.lock().expect("no panic").len() >= before + enough
        });
        proxy.running.kill();
        clients
            .into_iter()
            .for_each(|client| client.join().expect("no panic"));
    }
    let proxy = Proxy::start(&store, "replay", None, &[]);
    let seen = seen.lock().expect("no panic");
    for &number in seen.iter() {
        let answer = proxy.get(&format!("/{number}"), "");
        assert_eq!(status(&answer), 200, "/{number} is missing");
        assert!(split(&answer).1 == body(number), "/{number} is torn");
    }
    assert!(seen.len() >= 5 * kills());
    proxy.stop();
    assert!(run(&["verify", &store_argument(&store)]).contains(" are whole, 0 are not"));
}

fn store_argument(store: &Path) -> String {
    format!("--store={}", store.display())
}

/// Runs a command that must succeed; returns what it prints.
fn run(arguments: &[&str]) -> String {
    let output = output(command(bin("replay-proxy")).args(arguments));
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a command that must fail; returns its exit code and what it says.
fn fails(arguments: &[&str]) -> (Option<i32>, String) {
    let output = output(command(bin("replay-proxy")).args(arguments));
    assert!(!output.status.success(), "{arguments:?}");
    (output.status.code(), text(&output.stderr))
}

/// Makes a store with a short and a long answer.
fn filled(directory: &TempDir) -> PathBuf {
    let upstream = upstream(|_, head, client| {
        let body = vec![b'x'; if head.contains("/long") { 100_000 } else { 10 }];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(&[head.as_bytes(), &body].concat()).is_ok()
    });
    let store = directory.path().join("store");
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    for target in ["/short", "/long"] {
        assert_eq!(status(&proxy.get(target, "")), 200);
    }
    proxy.stop();
    store
}

/// Returns the only body that has a file.
fn body_file(store: &Path) -> PathBuf {
    let folder = fs::read_dir(store.join("bodies")).expect("a folder").next();
    let folder = folder.expect("one").expect("readable").path();
    let file = fs::read_dir(folder).expect("a folder").next();
    file.expect("one").expect("readable").path()
}

#[test]
fn a_damaged_body_is_refused_and_the_rest_is_served() {
    let directory = TempDir::new().expect("a directory");
    let store = filled(&directory);
    let file = body_file(&store);
    let mut bytes = fs::read(&file).expect("readable");
    bytes[50_000] ^= 1;
    fs::write(&file, bytes).expect("written");
    let proxy = Proxy::start(&store, "replay", None, &[]);
    let answer = proxy.get("/long", "");
    assert_eq!(status(&answer), 502);
    assert!(
        text(&answer).contains("its digest isn't its name"),
        "{}",
        text(&answer)
    );
    assert_eq!(status(&proxy.get("/short", "")), 200);
    assert_eq!(proxy.status("answers_unreadable"), 1);
    proxy.stop();
    let checked = output(command(bin("replay-proxy")).args(["verify", &store_argument(&store)]));
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stdout);
    assert!(
        said.contains("1 answers are whole, 1 are not") && said.contains("GET /long"),
        "{said}"
    );
    fs::remove_file(file).expect("ours");
    let proxy = Proxy::start(&store, "replay", None, &[]);
    assert_eq!(status(&proxy.get("/long", "")), 502);
    assert_eq!(status(&proxy.get("/short", "")), 200);
}

#[test]
fn a_damaged_row_is_refused_and_the_rest_is_served() {
    let directory = TempDir::new().expect("a directory");
    let store = filled(&directory);
    let database = rusqlite::Connection::open(store.join("answers.sqlite")).expect("a database");
    let damage = "UPDATE answers SET head = x'00' WHERE target = '/long'";
    assert_eq!(database.execute(damage, []).expect("written"), 1);
    drop(database);
    let proxy = Proxy::start(&store, "replay", None, &[]);
    assert_eq!(status(&proxy.get("/long", "")), 502);
    assert_eq!(status(&proxy.get("/short", "")), 200);
    let logged = proxy.stop();
    assert!(logged.contains("its head is damaged"), "{logged}");
    assert!(
        body_file(&store).exists(),
        "what a damaged row may need is kept"
    );
}

#[test]
fn what_is_half_written_is_dropped_and_counted() {
    let directory = TempDir::new().expect("a directory");
    let store = filled(&directory);
    fs::write(store.join("unfinished/7"), b"half").expect("written");
    let orphan = store.join("bodies/00").join("0".repeat(64));
    fs::create_dir_all(orphan.parent().expect("a folder")).expect("made");
    fs::write(&orphan, b"of no row").expect("written");
    let proxy = Proxy::start(&store, "replay", None, &[]);
    assert_eq!(status(&proxy.get("/long", "")), 200);
    let logged = proxy.stop();
    assert!(logged.contains("2 half-written bodies dropped"), "{logged}");
    assert!(!orphan.exists());
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let directory = TempDir::new().expect("a directory");
    let store = filled(&directory);
    let argument = store_argument(&store);
    let proxy = Proxy::start(&store, "replay", None, &[]);
    let (_, said) = fails(&["list", &argument]);
    assert!(said.contains("in use by another process"), "{said}");
    proxy.stop();
    let database = rusqlite::Connection::open(store.join("answers.sqlite")).expect("a database");
    database
        .pragma_update(None, "user_version", 99)
        .expect("written");
    drop(database);
    let (_, said) = fails(&["list", &argument]);
    assert!(said.contains("has version 99: expected 2"), "{said}");
    fs::write(store.join("answers.sqlite"), vec![7; 8192]).expect("written");
    let (_, said) = fails(&["list", &argument]);
    assert!(said.contains("'answers.sqlite' is no database"), "{said}");
    let (_, said) = fails(&["list", "--store=/does/not/exist"]);
    assert!(
        said.contains("there is no store at '/does/not/exist'"),
        "{said}"
    );
    let (code, said) = fails(&[
        "serve",
        "--mode=record",
        "--store=/tmp/x",
        "--upstream=a:b:c",
    ]);
    assert!(
        code == Some(2) && said.contains("expected HOST:PORT"),
        "{said}"
    );
}

#[test]
fn an_answer_that_cannot_be_stored_is_still_passed_on() {
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let upstream = answers(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".as_slice(),
            &[b'x'; 100_000],
        ]
        .concat(),
    );
    let proxy = Proxy::start(&store, "record", Some(upstream.address), &[]);
    // Files can't be made in what isn't a folder.
    fs::remove_dir(store.join("unfinished")).expect("empty");
    fs::write(store.join("unfinished"), b"").expect("written");
    let answer = proxy.get("/a", "");
    assert_eq!((status(&answer), split(&answer).1.len()), (200, 100_000));
    assert_eq!(proxy.status("answers_unstored_failed"), 1);
    assert_eq!(proxy.status("recordings"), 0);
}

#[test]
fn hits_come_from_the_disk_once_memory_is_full() {
    let directory = TempDir::new().expect("a directory");
    let store = directory.path().join("store");
    let upstream = upstream(|_, head, client| {
        let target = head.split(' ').nth(1).expect("a target");
        let body = body(target.trim_start_matches('/').parse().expect("a number"));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        client.write_all(&[head.as_bytes(), &body].concat()).is_ok()
    });
    let proxy = Proxy::start(
        &store,
        "record",
        Some(upstream.address),
        &["--memory-mib=0"],
    );
    let is_wrong = AtomicBool::new(false);
    for number in 0..40 {
        proxy.get(&format!("/{number}"), "");
    }
    proxy.stop();
    let proxy = Proxy::start(&store, "replay", None, &["--memory-mib=0"]);
    for number in (0..40).chain(0..40) {
        let answer = proxy.get(&format!("/{number}"), "");
        is_wrong.fetch_or(split(&answer).1 != body(number), SeqCst);
    }
    assert!(!is_wrong.load(SeqCst));
    assert_eq!(proxy.status("recordings_memory_bytes"), 0);
}
