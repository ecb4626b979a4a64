//! Goal: HTTP routes find their target, lose nothing and say what went wrong. Method: the real
//! program between sockets of the test. The cases of framing are in `http_conformance.rs`.

#[path = "../../../testing/processes.rs"]
#[allow(unused_imports, reason = "not everyone's")]
mod processes;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use nix::sys::signal::Signal;
use processes::{Running, WATCHDOG, bin, command, until};
use tempfile::TempDir;

/// A forwarder with a configuration file.
struct Forwarder {
    running: Running,
    file: std::path::PathBuf,
    /// The address of the first port it said it listens at.
    address: SocketAddr,
    _directory: TempDir,
}

impl Forwarder {
    fn start(config: &str, arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("forwarder.toml");
        std::fs::write(&file, config).expect("written");
        let mut start = command(bin("forwarder"));
        start.args(["start", "--exit-with-stdin"]).args(arguments);
        let running = Running::start(start.arg(format!("--config={}", file.display())));
        let line = running.line("listening on ");
        let address = line.split(' ').next().expect("an address");
        Self {
            address: address.parse().expect("an address"),
            running,
            file,
            _directory: directory,
        }
    }

    /// Asks for a target and returns the whole answer.
    fn get(&self, target: &str, fields: &str) -> String {
        ask(
            self.address,
            &format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n"),
        )
    }

    fn hang_up(&self) {
        self.running.signal(Signal::SIGHUP);
    }

    /// Ends it. Returns what was printed and what was logged.
    fn stop(self) -> (String, String) {
        self.running.signal(Signal::SIGTERM);
        let (status, printed, logged) = self.running.wait();
        assert!(status.success(), "{status}: {logged}");
        (printed, logged)
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("set");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    // A reset shows as an answer that is cut off.
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upstream that answers each request with its name and the request line.
struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

fn upstream(name: &'static str) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (connections, requests) = (Arc::default(), Arc::default());
    let upstream = Upstream {
        address,
        connections: Arc::clone(&connections),
        requests: Arc::clone(&requests),
    };
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            connections.fetch_add(1, SeqCst);
            let requests = Arc::clone(&requests);
            thread::spawn(move || answer_all(client, name, &requests));
        }
    });
    upstream
}

fn answer_all(mut client: TcpStream, name: &str, requests: &AtomicUsize) {
    let mut reader = BufReader::new(client.try_clone().expect("a socket"));
    let mut first = String::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if first.is_empty() => first = line.trim().to_owned(),
            Ok(_) if line == "\r\n" => {
                requests.fetch_add(1, SeqCst);
                let body = format!("{name}: {}", std::mem::take(&mut first));
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                if client.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Ok(_) => {}
        }
    }
}

fn route(name: &str, port: u16, more: &str) -> String {
    format!(
        "[[routes]]\nname = '{name}'\nenabled = true\nmode = 'http'\nlisten_port = {port}\n{more}\n"
    )
}

fn to(target: &Upstream) -> String {
    format!("target_port = {}", target.address.port())
}

/// Returns a port that was free a moment ago, for routes that share one.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

const HERE: &str = "listen_addr = '127.0.0.1'\n";

#[test]
fn hosts_find_their_routes() {
    let (one, two, rest) = (upstream("one"), upstream("two"), upstream("rest"));
    let port = free_port();
    let config = HERE.to_owned()
        + &route("one", port, &format!("host = 'one.example'\n{}", to(&one)))
        + &route(
            "two",
            port,
            &format!("host = '*.two.example'\n{}", to(&two)),
        );
    let forwarder = Forwarder::start(&config, &[]);
    for (host, said) in [
        ("one.example", "one: GET /a HTTP/1.1"),
        ("ONE.example:80", "one: GET"),
        ("x.y.two.example", "two: GET"),
        ("two.example", "no route has this host"),
    ] {
        let answer = forwarder.get("/a", &format!("Host: {host}\r\n"));
        assert!(answer.contains(said), "{host}: {answer}");
    }
    drop(forwarder);
    let config = config + &route("rest", port, &to(&rest));
    let forwarder = Forwarder::start(&config, &[]);
    let answer = forwarder.get("/", "Host: two.example\r\n");
    assert!(answer.contains("rest: GET"), "{answer}");
}

#[test]
fn requests_choose_only_among_what_is_allowed() {
    let allowed = upstream("allowed");
    let other = upstream("other");
    let port = allowed.address.port();
    let allow = format!("[routes.allow]\nnetworks = ['127.0.0.1']\nports = [{port}]");
    let forwarder = Forwarder::start(&(HERE.to_owned() + &route("any", 0, &allow)), &[]);
    let ask = |host: &str, port: u16| {
        let target = format!("/p?a=1&porty_host={host}&porty_port={port}&b=2");
        forwarder.get(&target, "Host: x\r\n")
    };
    let answer = ask("127.0.0.1", port);
    assert!(
        answer.contains("allowed: GET /p?a=1&b=2 HTTP/1.1"),
        "{answer}"
    );
    for (host, port) in [
        ("127.0.0.1", other.address.port()),
        ("127.0.0.2", port),
        ("169.254.169.254", port),
        ("%3A%3A1", port),
        ("0.0.0.0", port),
    ] {
        let answer = ask(host, port);
        assert!(
            answer.starts_with("HTTP/1.1 403"),
            "{host}:{port}: {answer}"
        );
    }
    assert_eq!(other.connections.load(SeqCst), 0);
    let answer = ask("name.invalid", port);
    assert!(
        answer.starts_with("HTTP/1.1 502") && answer.contains("'name.invalid' could not be"),
        "as for a target of the route: {answer}"
    );
    let spelled = format!("/p?porty%5fhost=127.0.0.1&%70orty_port={port}&c");
    let answer = forwarder.get(&spelled, "Host: x\r\n");
    assert!(answer.contains("allowed: GET /p?c HTTP/1.1"), "{answer}");
    let answer = forwarder.get("/p", "Host: x\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let logged = forwarder.stop().1;
    assert!(
        logged.contains("169.254.169.254 is never allowed"),
        "{logged}"
    );
}

#[test]
fn connections_to_a_target_are_used_again() {
    let target = upstream("target");
    let forwarder = Forwarder::start(
        &(HERE.to_owned() + &route("web", 0, &to(&target))),
        &["--threads=1"],
    );
    for _ in 0..20 {
        let answer = forwarder.get("/", "Host: x\r\n");
        assert!(answer.contains("target: GET"), "{answer}");
    }
    assert_eq!(target.requests.load(SeqCst), 20);
    assert_eq!(target.connections.load(SeqCst), 1);
}

#[test]
fn targets_take_turns() {
    let (one, two) = (upstream("one"), upstream("two"));
    let targets = format!("targets = ['{}', '{}']", one.address, two.address);
    let forwarder = Forwarder::start(&(HERE.to_owned() + &route("web", 0, &targets)), &[]);
    for _ in 0..20 {
        let answer = forwarder.get("/", "Host: x\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let asked = [&one, &two].map(|target| target.requests.load(SeqCst));
    assert_eq!(asked, [10, 10]);
}

#[test]
fn a_target_that_is_gone_leaves_its_requests_to_another() {
    let works = upstream("works");
    let gone = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound");
    let targets = format!("targets = ['{gone}', '{}']\nmax_retries = 1", works.address);
    let forwarder = Forwarder::start(&(HERE.to_owned() + &route("web", 0, &targets)), &[]);
    for _ in 0..10 {
        let answer = forwarder.get("/", "Host: x\r\n");
        assert!(answer.contains("works: GET"), "{answer}");
    }
    let post = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab";
    for _ in 0..4 {
        let answer = ask(forwarder.address, post);
        assert!(
            answer.starts_with("HTTP/1.1 200"),
            "nothing was sent, so it is safe: {answer}"
        );
    }
}

#[test]
fn a_new_configuration_is_taken_as_a_whole_or_not_at_all() {
    let (old, new) = (upstream("old"), upstream("new"));
    let port = free_port();
    let config = |target: &Upstream| HERE.to_owned() + &route("web", port, &to(target));
    let forwarder = Forwarder::start(&config(&old), &["--log=info", "--admin=127.0.0.1:0"]);
    // A client that stays connected.
    let mut client = TcpStream::connect(forwarder.address).expect("it listens");
    client.set_read_timeout(Some(WATCHDOG)).expect("set");
    let mut reader = BufReader::new(client.try_clone().expect("a socket"));
    let mut ask_again = || {
        client
            .write_all(b"GET /k HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        while !answer.ends_with("GET /k HTTP/1.1") {
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("an answer");
            answer.push(char::from(byte[0]));
        }
        answer
    };
    assert!(ask_again().contains("old: GET"));
    std::fs::write(&forwarder.file, config(&new)).expect("written");
    forwarder.hang_up();
    until("the new target answers", || {
        forwarder.get("/", "Host: x\r\n").contains("new: GET")
    });
    assert!(
        ask_again().contains("new: GET"),
        "the next request of an open connection"
    );
    // The port of the second route is taken, so the first must not change either.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().expect("bound").port();
    let more = config(&old) + &route("more", taken_port, &to(&old));
    for (bad, why) in [
        (more, "route 'more'"),
        (
            config(&old) + "timeout_seconds = 0\n",
            "forwarder.toml:8:19: route 'web': 'timeout_seconds': expected",
        ),
        (
            config(&old) + "max_conections = 1\n",
            "forwarder.toml:8:1: 'routes': unknown field `max_conections`",
        ),
        ("[[routes]".to_owned(), "forwarder.toml:1:10: unclosed"),
        ("# nothing\n".to_owned(), "is empty"),
    ] {
        std::fs::write(&forwarder.file, bad).expect("written");
        forwarder.hang_up();
        let line = forwarder
            .running
            .error_line("the configuration stays as it was");
        assert!(line.contains(why), "{line}");
    }
    std::fs::write(&forwarder.file, config(&new) + &route("last", 0, &to(&old))).expect("written");
    forwarder.hang_up();
    let line = forwarder.running.line("listening on ");
    assert!(line.contains("'last'"), "{line}");
    assert!(forwarder.get("/", "Host: x\r\n").contains("new: GET"));
    let (printed, _) = forwarder.stop();
    assert!(printed.contains("\"forwarder_reloads\":2"), "{printed}");
    assert!(
        printed.contains("\"forwarder_reloads_refused\":5"),
        "{printed}"
    );
}

#[test]
fn a_watched_file_is_read_again_when_it_changes() {
    let (old, new) = (upstream("old"), upstream("new"));
    let port = free_port();
    let config = |target: &Upstream| HERE.to_owned() + &route("web", port, &to(target));
    let forwarder = Forwarder::start(&config(&old), &["--watch"]);
    assert!(forwarder.get("/", "Host: x\r\n").contains("old: GET"));
    // Most editors replace a file.
    let beside = forwarder.file.with_extension("new");
    std::fs::write(&beside, config(&new) + "\n").expect("written");
    std::fs::rename(&beside, &forwarder.file).expect("renamed");
    until("the new target answers", || {
        forwarder.get("/", "Host: x\r\n").contains("new: GET")
    });
}

#[test]
fn lines_of_the_log_have_one_mark_and_end_with_the_duration() {
    let target = upstream("target");
    let config = HERE.to_owned() + &route("web", 0, &format!("{}\nmax_retries = 0", to(&target)));
    let forwarder = Forwarder::start(&config, &[]);
    forwarder.get("/good", "Host: x\r\n");
    ask(forwarder.address, "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n");
    let (printed, _) = forwarder.stop();
    let lines: Vec<_> = printed
        .lines()
        .filter(|line| line.contains("ms)"))
        .collect();
    let [good] = lines.as_slice() else {
        panic!("{printed}");
    };
    assert!(
        good.contains("✅ web 127.0.0.1 \"GET /good\" 200"),
        "{good}"
    );
    let last = good.rsplit(' ').next().expect("a word");
    let number = last.trim_start_matches('(').trim_end_matches("ms)");
    assert!(number.parse::<f64>().is_ok(), "{good}");
}

#[test]
fn a_reader_of_the_log_that_has_stopped_does_not_hold_up_the_end() {
    let target = upstream("target");
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("forwarder.toml");
    let port = free_port();
    let config = HERE.to_owned() + &route("web", port, &to(&target));
    std::fs::write(&file, config).expect("written");
    // A pipe that nobody reads from.
    let (_reader, log) = std::io::pipe().expect("a pipe");
    let mut forwarder = command(bin("forwarder"))
        .args([
            "start",
            "--drain-ms=100",
            &format!("--config={}", file.display()),
        ])
        .stdout(log)
        .spawn()
        .expect("it starts");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    until("it listens", || TcpStream::connect(address).is_ok());
    let mut client = TcpStream::connect(address).expect("it listens");
    client.set_read_timeout(Some(WATCHDOG)).expect("set");
    let long = "x".repeat(8_000);
    // More than a pipe and all buffers hold.
    for _ in 0..64 {
        let request = format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(request.as_bytes()).expect("sent");
        let mut answer = vec![0; 64 * 1024];
        assert!(client.read(&mut answer).expect("an answer") > 0);
    }
    let pid = i32::try_from(forwarder.id()).expect("a process number");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).expect("it runs");
    until("it has ended", || {
        forwarder.try_wait().expect("ours").is_some()
    });
}
