//! The programs that the cases run against, each with a listener and a target per case.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Mutex,
    time::Duration,
};

use tempfile::TempDir;

use super::origin::Port;
use crate::processes::{Running, bin, command, installed, output, text, until};

/// A running program.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Address of each case's listener.
    pub(crate) addresses: Vec<SocketAddr>,
    running: Running,
    _directory: TempDir,
}

/// Times that a program is started anew because another process took one of its ports.
const STARTS_MAX: usize = 5;

/// Time limit for an answer of a program that starts. It is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Held while ports are taken. Those that are reserved for one program, and free until it starts,
/// must not be given to another, or to an origin.
static TAKING_PORTS: Mutex<()> = Mutex::new(());

/// Versions of the programs that the tables describe.
pub(crate) const VERSIONS: [(&str, &str); 2] = [("haproxy", "2.6"), ("nginx", "1.22")];

/// Makes an origin's port for each case, and starts a program with a route to each of them. Says
/// loudly if it can't be tested.
pub(crate) fn start(
    name: &str,
    refuses: impl Iterator<Item = bool>,
) -> Option<(Subject, Vec<Port>)> {
    let _taking = TAKING_PORTS.lock();
    let origins: Vec<Port> = refuses.map(Port::new).collect();
    let subject = match name {
        "haproxy" => start_other(name, &["-v"], haproxy, &origins)?,
        "nginx" => start_other(name, &["-v"], nginx, &origins)?,
        _ => start_ours(&origins),
    };
    Some((subject, origins))
}

impl Drop for Subject {
    fn drop(&mut self) {
        if std::thread::panicking() && self.running.has_ended() {
            eprintln!("the subject has ended by itself");
        }
    }
}

fn start_ours(origins: &[Port]) -> Subject {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("forwarder.toml");
    let mut config = "listen_addr = '127.0.0.1'\nmax_connections = 4096\n".to_owned();
    for (index, origin) in origins.iter().enumerate() {
        let port = origin.address().port();
        config += &format!(
            "[[routes]]\nname = 'r{index}'\nenabled = true\nmode = 'http'\nlisten_port = 0\n\
             target_addr = '127.0.0.1'\ntarget_port = {port}\nlog_level = 'none'\n\
             timeout_seconds = 2\nmax_retries = 2\n"
        );
    }
    fs::write(&file, config).expect("written");
    let config = format!("--config={}", file.display());
    let mut command = command(bin("forwarder"));
    let running = Running::start(command.args([&config, "--exit-with-stdin"]));
    let mut addresses = vec![None; origins.len()];
    while addresses.contains(&None) {
        let line = running.line("listening on ");
        let parts = line
            .strip_suffix("')")
            .and_then(|it| it.split_once(" (route 'r"));
        let (address, index) = parts.unwrap_or_else(|| panic!("'{line}' names no route"));
        let index: usize = index.parse().expect("a number");
        addresses[index] = Some(address.parse().expect("an address"));
    }
    Subject {
        addresses: addresses.into_iter().flatten().collect(),
        running,
        _directory: directory,
    }
}

/// Writes a program's files for routes from the first ports to the second ones, and returns its
/// arguments.
type Configure = fn(&Path, &[(SocketAddr, SocketAddr)]) -> Vec<String>;

fn start_other(
    name: &str,
    version: &[&str],
    configure: Configure,
    origins: &[Port],
) -> Option<Subject> {
    let program = installed(name)?;
    let said = output(command(&program).args(version));
    let said = text(&said.stdout) + &text(&said.stderr);
    let (_, expected) = VERSIONS.iter().find(|(it, _)| *it == name).expect("known");
    let is_described = said.split([' ', '/']).any(|word| {
        let rest = word.strip_prefix(expected);
        rest.is_some_and(|rest| rest.starts_with('.'))
    });
    if !is_described {
        let line = said.lines().next().unwrap_or_default();
        eprintln!("SKIPPED: the tables describe '{name}' {expected}, and '{line}' is installed");
        return None;
    }
    for _ in 0..STARTS_MAX {
        let directory = TempDir::new().expect("a directory");
        let listeners: Vec<_> = origins
            .iter()
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("ports are left"))
            .collect();
        let addresses: Vec<_> = listeners
            .iter()
            .map(|listener| listener.local_addr().expect("bound"))
            .collect();
        let targets = origins.iter().map(Port::address);
        let routes: Vec<_> = addresses.iter().copied().zip(targets).collect();
        let arguments = configure(directory.path(), &routes);
        drop(listeners);
        let mut running = Running::start(command(&program).args(arguments));
        let last = addresses.last().expect("a case");
        let mut has_ended = false;
        until("the program listens", || {
            has_ended = running.has_ended();
            has_ended || answers(last)
        });
        if !has_ended {
            return Some(Subject {
                addresses,
                running,
                _directory: directory,
            });
        }
        let (status, _, errors) = running.wait();
        eprintln!("'{name}' is started anew: {status}: {errors}");
    }
    panic!("'{name}' does not start");
}

/// Returns whether a program answers. One that has yet to take all its ports may still give up.
fn answers(address: &SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    // Whoever else has the port may never answer.
    let patience = stream.set_read_timeout(Some(ANSWER_MAX));
    // No request, so that no origin is asked.
    let asked = patience.and_then(|()| stream.write_all(b"?\r\n\r\n"));
    let mut first = [0];
    asked.is_ok() && stream.read_exact(&mut first).is_ok() && first == *b"H"
}

fn haproxy(directory: &Path, routes: &[(SocketAddr, SocketAddr)]) -> Vec<String> {
    let template = include_str!("haproxy.cfg");
    let section = template.find("listen CASE").expect("a section for a case");
    let (head, section) = template.split_at(section);
    let mut config = head.to_owned();
    for (index, (listen, target)) in routes.iter().enumerate() {
        let section = section.replace("CASE", &format!("case{index}"));
        let section = section.replace("LISTEN", &listen.to_string());
        config += &section.replace("TARGET", &target.to_string());
    }
    let file = directory.join("haproxy.cfg");
    fs::write(&file, config).expect("written");
    let file = file.display().to_string();
    ["-db", "-f", &file].map(str::to_owned).to_vec()
}

fn nginx(directory: &Path, routes: &[(SocketAddr, SocketAddr)]) -> Vec<String> {
    let mut servers = String::new();
    for (index, (listen, target)) in routes.iter().enumerate() {
        servers += &format!(
            "upstream case{index} {{ server {target} max_fails=0; keepalive 16; }}\n\
             server {{ listen {listen}; location / {{ proxy_pass http://case{index}; }} }}\n"
        );
    }
    let path = directory.display().to_string();
    let config = include_str!("nginx.conf");
    let config = config
        .replace("SERVERS", &servers)
        .replace("DIRECTORY", &path);
    let file = directory.join("nginx.conf");
    fs::write(&file, config).expect("written");
    let file = file.display().to_string();
    ["-p", &path, "-c", &file, "-e", "stderr"]
        .map(str::to_owned)
        .to_vec()
}
