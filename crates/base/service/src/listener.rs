//! TCP and Unix listeners that clean up after themselves.

use std::{
    fs, io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio_util::either::Either;

use crate::Address;

/// A bound listener. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub enum Listener {
    /// Clients get `TCP_NODELAY`.
    Tcp(TcpListener),
    /// Only this user can connect.
    Unix(UnixListener, SocketFile),
}

/// A connection that was accepted.
pub type Stream = Either<TcpStream, UnixStream>;

/// The file of a Unix socket that this process has bound.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Inode of the file. It tells our file from one that another process has put there since.
    inode: u64,
}

/// Most connections that wait to be accepted. A sweep opens hundreds at once. The kernel caps this
/// at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// How long to wait for another server that starts in the same directory, and how often to check.
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

    /// Returns the address that clients connect to.
    ///
    /// # Errors
    /// If the kernel refuses to tell.
    pub fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
        })
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// If the process has run out of descriptors, or the client has already gone.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Either::Left(stream)
            }
            Self::Unix(listener, _) => Either::Right(listener.accept().await?.0),
        })
    }
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
                "{}: the path holds a file that is no socket; choose another path",
                describe()
            );
        }
        Ok(_) => match probe(path) {
            Err(Errno::CONNREFUSED) => {
                fs::remove_file(path).with_context(describe)?;
            }
            Err(error) if error != Errno::AGAIN => return Err(error).with_context(describe),
            // A process accepts there, or its backlog is full.
            Ok(()) | Err(_) => anyhow::bail!(
                "{}: address in use by a running process; stop it or choose another path",
                describe()
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(describe),
    }
    let socket = UnixSocket::new_stream().with_context(describe)?;
    // Set before bind(2), which creates the file with the socket's mode. So nobody else can connect
    // in between, whatever the umask.
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::fchmod(&socket, mode)
        .map_err(io::Error::from)
        .and_then(|()| socket.bind(path))
        .with_context(describe)?;
    // From here on the file is removed if anything fails.
    let file = SocketFile::new(path).with_context(describe)?;
    let listener = socket.listen(BACKLOG).with_context(describe)?;
    Ok((listener, file))
}

/// Locks the directory of a socket's file while the file is checked, replaced and listened on. So
/// of two servers that start at once over a stale file, the second finds the first. Returns `None`
/// if the lock can't be had: any other process may hold it, and need not release it.
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
        // flock(2) has no time-out, so the lock is polled.
        thread::park_timeout(LOCK_LOOK);
    }
    Some(directory)
}

/// Connects to a Unix socket, to find out whether somebody listens there. Never waits: the process
/// that listens may be suspended.
fn probe(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn listen_error(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; stop the process that listens there, or choose another address"
        }
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
    // A port in TIME_WAIT from an earlier run doesn't count as in use.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
        let directory = std::env::temp_dir().join(format!("service-bind-{}", std::process::id()));
        fs::create_dir(&directory).expect("a fresh directory");
        let path = directory.join("socket");

        let (first, file) = bind_unix(&path).expect("the path is free");
        let error = bind_unix(&path).unwrap_err().to_string();
        assert!(error.contains("address in use"), "{error}");

        // A socket whose backlog is full is in use, too.
        let narrow = directory.join("narrow");
        let socket = UnixSocket::new_stream().expect("a socket");
        socket.bind(&narrow).expect("the path is free");
        let _listener = socket.listen(0).expect("bound");
        // Each client keeps its place in the backlog until it is accepted, even if it has gone.
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
        let directory = std::env::temp_dir().join(format!("service-race-{}", std::process::id()));
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
