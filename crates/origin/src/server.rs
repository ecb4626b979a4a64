//! Puts the application on a listener, or on a byte stream that is already open.

use std::{
    fmt, fs,
    future::Future,
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{Router, serve::ListenerExt};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener, UnixSocket},
};

/// Where a server listens, or where an upstream is: `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A bound listener. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket that this process has bound.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Inode, so that a file that another process has put there since is left alone.
    inode: u64,
}

/// Connections that wait to be accepted. A sweep opens hundreds at once; the kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// How long to wait for others that start in the same directory, and how often to look.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
const LOCK_LOOK: Duration = Duration::from_millis(5);

impl Listener {
    /// Binds `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// If the address is in use, not permitted, or a path that is no socket.
    pub fn bind(address: &Address) -> anyhow::Result<Self> {
        match address {
            Address::Tcp(address) => bind_tcp(*address)
                .map(Self::Tcp)
                .map_err(|error| listen_error(*address, error)),
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    /// The address clients connect to.
    ///
    /// # Errors
    /// If the kernel doesn't tell.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
        })
    }
}

/// Serves `router` until `stop` resolves, then lets open requests finish for at most `drain`.
/// Returns how many connections were accepted.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: Listener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
    drain: Duration,
) -> io::Result<u64> {
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = async move {
        stop.await;
        // Fails only if serving has already ended by itself.
        let _ = stopping.send(());
    };
    // Accepting is one task's work: the count is a statistic, and orders nothing.
    let accepted = Arc::new(AtomicU64::new(0));
    let count = accepted.clone();
    // Keeps a Unix socket's file until serving has ended.
    let mut socket_file = None;
    let serving = async {
        match listener {
            Listener::Tcp(listener) => {
                let listener = listener.tap_io(move |stream| {
                    count.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "could not set TCP_NODELAY");
                    }
                });
                axum::serve(listener, router)
                    .with_graceful_shutdown(stop)
                    .await
            }
            Listener::Unix(listener, file) => {
                socket_file = Some(file);
                let listener = listener.tap_io(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
                axum::serve(listener, router)
                    .with_graceful_shutdown(stop)
                    .await
            }
        }
    };
    let overdue = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        result = serving => result?,
        () = overdue => {
            tracing::info!(?drain, "connections were still open at the end of the drain");
        }
    }
    Ok(accepted.load(Ordering::Relaxed))
}

/// Serves `router` on one open byte stream, as [`serve`] does on each that it accepts. A head of
/// HTTP/1 that has begun, or that an earlier answer awaits, must be there within `head_timeout`.
///
/// # Errors
/// What the connection ended with, if not cleanly.
pub async fn serve_stream<S>(
    stream: S,
    router: Router,
    head_timeout: Option<Duration>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    if let Some(limit) = head_timeout {
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limit);
    }
    server
        .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// Binds a Unix socket for this user only. A file left by a process that is gone is replaced; one
/// that a process still answers on is not.
///
/// # Errors
/// If a process answers there, the path holds something that is no socket, or binding fails.
pub fn bind_unix(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let describe = || format!("could not listen on 'unix:{}'", path.display());
    let _alone = lock_directory(path);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            anyhow::bail!(
                "{}: a file that is no socket is there; choose another path",
                describe()
            );
        }
        Ok(_) => match probe(path) {
            Err(Errno::CONNREFUSED) => {
                fs::remove_file(path).with_context(describe)?;
            }
            Err(error) if error != Errno::AGAIN => return Err(error).with_context(describe),
            // Or its backlog is full.
            Ok(()) | Err(_) => anyhow::bail!(
                "{}: address in use by a running process; stop it or choose another path",
                describe()
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(describe),
    }
    let socket = UnixSocket::new_stream().with_context(describe)?;
    // Before there is a file, which is made with what the socket has: nobody else can connect in
    // between, whatever the umask.
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::fchmod(&socket, mode)
        .map_err(io::Error::from)
        .and_then(|()| socket.bind(path))
        .with_context(describe)?;
    // Removed from here on, whatever fails.
    let file = SocketFile::new(path).with_context(describe)?;
    let listener = socket.listen(BACKLOG).with_context(describe)?;
    Ok((listener, file))
}

/// Held while a socket's file is looked at, replaced and listened on: of two servers that start at
/// once over a file that was left, the second finds the first. `None` where it can't be had: it is
/// also others' to hold, who need not let go.
fn lock_directory(path: &Path) -> Option<OwnedFd> {
    let parent = path.parent()?;
    let directory = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty()).ok()?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    while let Err(error) = flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK || deadline <= Instant::now() {
            return None;
        }
        // A lock that is let go tells nobody who doesn't wait for it without end.
        thread::park_timeout(LOCK_LOOK);
    }
    Some(directory)
}

/// Whether somebody listens on a Unix socket. Never waits: what listens may be stopped.
fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn listen_error(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what listens there, or choose another --listen",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("could not listen on '{address}'{hint}"))
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A port in TIME_WAIT from the run before is not in use.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        Ok(Self {
            path: path.to_owned(),
            inode: fs::symlink_metadata(path)?.ino(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt;
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the socket file");
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected a path after 'unix:'".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .replace("localhost:", "127.0.0.1:")
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "expected 'HOST:PORT' with a numeric host, or 'unix:PATH'".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        for text in ["127.0.0.1:4000", "[::1]:0", "unix:/tmp/a.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for text in ["", "4000", "unix:", "example.org:80", "127.0.0.1:65536"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
        let directory = std::env::temp_dir().join(format!("origin-bind-{}", std::process::id()));
        fs::create_dir(&directory).expect("a fresh directory");
        let path = directory.join("socket");

        let (first, file) = bind_unix(&path).expect("the path is free");
        let error = bind_unix(&path).unwrap_err().to_string();
        assert!(error.contains("address in use"), "{error}");

        // With a backlog that is full, it is in use as well.
        let narrow = directory.join("narrow");
        let socket = UnixSocket::new_stream().expect("a socket");
        socket.bind(&narrow).expect("the path is free");
        let _listener = socket.listen(0).expect("bound");
        // Each that was not accepted yet keeps its place, even if it has gone.
        while probe(&narrow) != Err(Errno::AGAIN) {}
        let error = bind_unix(&narrow).unwrap_err().to_string();
        assert!(error.contains("address in use"), "{error}");

        // Closed without removing the file: as after a crash.
        std::mem::forget(file);
        drop(first);
        let (_second, file) = bind_unix(&path).expect("the file is stale");
        assert_eq!(
            fs::metadata(&path).expect("bound").permissions().mode() & 0o777,
            0o600
        );
        drop(file);
        assert!(!path.exists(), "removed with the listener");

        fs::write(&path, "not a socket").expect("writable");
        let error = bind_unix(&path).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[tokio::test]
    async fn of_servers_that_start_at_once_one_listens() {
        const ROUNDS: usize = 200;
        let directory = std::env::temp_dir().join(format!("origin-race-{}", std::process::id()));
        fs::create_dir(&directory).expect("a fresh directory");
        let runtime = tokio::runtime::Handle::current();
        for round in 0..ROUNDS {
            let path = directory.join(round.to_string());
            // Closed without removing the file: as after a crash.
            drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
            let together = std::sync::Barrier::new(2);
            let start = || {
                let _runtime = runtime.enter();
                together.wait();
                bind_unix(&path)
            };
            let started = thread::scope(|scope| {
                let others = [scope.spawn(start), scope.spawn(start)];
                others.map(|other| other.join().expect("no panic"))
            });
            let listening = started.iter().filter(|started| started.is_ok()).count();
            assert_eq!(listening, 1, "round {round}");
        }
        fs::remove_dir_all(&directory).expect("ours");
    }
}
