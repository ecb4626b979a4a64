//! The host's end of `--addr`: accepts peers and hears what they want.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, bail};
use service::listener::{SocketFile, bind_unix};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::{HANDSHAKE_TIMEOUT, PeerSocket};
use crate::transport::PeerAddress;

/// The host's end of `--addr`.
#[derive(Debug)]
pub(crate) enum PeerListener {
    Tcp(TcpListener),
    /// The file is removed with the listener.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A plugin that has connected and said what it wants.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(super) socket: PeerSocket,
    pub(super) hello: String,
}

/// The peers that come to `--addr`. A silent one keeps nobody waiting.
#[derive(Debug)]
pub(crate) struct Newcomers {
    /// `None` once the host stops. New peers are then refused, and may look for the next host.
    listener: Option<PeerListener>,
    stopping: watch::Receiver<bool>,
    hearing: JoinSet<anyhow::Result<Newcomer>>,
    /// The peers that are being heard, oldest first.
    heard: VecDeque<AbortHandle>,
}

/// Most peers that may have connected without having said what they want. With one more, the oldest
/// is dropped.
const SILENT_MAX: usize = 16;

/// Pause after a failed accept, for example for lack of file descriptors.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

impl PeerListener {
    pub(crate) async fn bind(address: &PeerAddress) -> anyhow::Result<Self> {
        match address {
            PeerAddress::Path(path) => {
                let (listener, _file) = bind_unix(path)?;
                Ok(Self::Unix { listener, _file })
            }
            PeerAddress::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .with_context(|| format!("could not listen on '{address}'")),
        }
    }

    async fn accept(&self) -> anyhow::Result<PeerSocket> {
        match self {
            Self::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok(PeerSocket::Tcp(socket))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = listener.accept().await?;
                let (theirs, ours) = (socket.peer_cred()?.uid(), rustix::process::geteuid());
                if theirs != ours.as_raw() {
                    bail!(
                        "refused a peer of user {theirs}: expected user {}",
                        ours.as_raw()
                    );
                }
                Ok(PeerSocket::Unix(socket))
            }
        }
    }
}

impl Newcomers {
    pub(crate) fn at(listener: PeerListener, stopping: watch::Receiver<bool>) -> Self {
        Self {
            listener: Some(listener),
            stopping,
            hearing: JoinSet::new(),
            heard: VecDeque::new(),
        }
    }

    /// Returns the next peer that has said what it wants, or the reason why one has not. Nothing is
    /// lost if this future is dropped.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Newcomer> {
        loop {
            let accept = async {
                match &self.listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = async { drop(self.stopping.wait_for(|stopping| *stopping).await) },
                    if self.listener.is_some() =>
                {
                    self.listener = None;
                    self.hearing.abort_all();
                }
                accepted = accept => match accepted {
                    Ok(socket) => self.hear(socket),
                    Err(error) => {
                        tokio::time::sleep(FAILED_PAUSE).await;
                        return Err(error.context("could not accept a plugin"));
                    }
                },
                Some(heard) = self.hearing.join_next() => match heard {
                    Ok(newcomer) => return newcomer,
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    fn hear(&mut self, socket: PeerSocket) {
        self.heard.retain(|peer| !peer.is_finished());
        if self.heard.len() >= SILENT_MAX
            && let Some(first) = self.heard.pop_front()
        {
            first.abort();
        }
        self.heard.push_back(self.hearing.spawn(socket.introduce()));
    }
}

impl PeerSocket {
    /// Waits until the peer has said what it wants.
    pub(super) async fn introduce(mut self) -> anyhow::Result<Newcomer> {
        let hello = timeout(HANDSHAKE_TIMEOUT, self.hear()).await;
        let hello = hello.context("a peer connected but said nothing")??;
        Ok(Newcomer {
            socket: self,
            hello,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn those_that_say_nothing_keep_nobody_waiting_and_the_first_of_too_many_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("plugins");
        let address = PeerAddress::Path(path.clone());
        let listener = PeerListener::bind(&address).await.expect("free");
        let (_stop, stopping) = watch::channel(false);
        let mut newcomers = Newcomers::at(listener, stopping);
        let connect = || tokio::net::UnixStream::connect(&path);
        let mut first = connect().await.expect("listens");
        // Half a line is not enough.
        first.write_all(b"{").await.expect("sent");
        let mut silent = Vec::new();
        for _ in 1..SILENT_MAX {
            silent.push(connect().await.expect("listens"));
        }
        let mut speaker = connect().await.expect("listens");
        speaker.write_all(b"hello\n").await.expect("sent");
        let newcomer = newcomers.next().await.expect("one has spoken");
        assert_eq!(newcomer.hello, "hello");
        // The first connection has ended; the others have not.
        assert!(matches!(first.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        assert!(silent[0].try_read(&mut [0; 1]).is_err(), "still open");
        silent[0].write_all(b"hello, too\n").await.expect("sent");
        let newcomer = newcomers.next().await.expect("another has spoken");
        assert_eq!(newcomer.hello, "hello, too");
    }
}
