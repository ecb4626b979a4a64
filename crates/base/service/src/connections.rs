//! Accepts connections, hands each to a task, and drains them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{ConnectionLimit, Listener, Registry, limit::Permit, listener::Stream};

crate::counters! {
    /// Counters of the connections that a server accepts.
    pub struct ConnectionCounters, "" {
        /// connections accepted
        connections_accepted: Counter, "connections";
        /// connections open now
        connections_open: Gauge, "connections";
        /// times the listener stopped accepting because --max-connections was reached
        accept_stalls: Counter, "stalls";
    }
}

/// A listener with a limit of connections, which are counted.
#[derive(Debug)]
pub struct Acceptor {
    listener: Listener,
    limit: ConnectionLimit,
    counters: Arc<ConnectionCounters>,
}

/// An accepted connection, which counts as open until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    _permit: Permit,
    counters: Arc<ConnectionCounters>,
}

/// Pause after a failed accept. If the process has run out of descriptors, a retry would fail at
/// once.
const FAILED_PAUSE: Duration = Duration::from_millis(50);

impl Acceptor {
    /// Accepts from `listener` at most `connections_max` connections at a time, and registers their
    /// counters.
    pub fn new(listener: Listener, connections_max: usize, registry: &Registry) -> Self {
        let counters = Arc::new(ConnectionCounters::default());
        registry.register(counters.clone());
        Self {
            listener,
            limit: ConnectionLimit::new(connections_max),
            counters,
        }
    }

    /// Accepts one connection as soon as the limit allows one more. Logs an error and retries.
    pub async fn accept(&self) -> Connection {
        let stalled = || self.counters.accept_stalls.add(1);
        let permit = self.limit.permit(stalled).await;
        loop {
            match self.listener.accept().await {
                Ok(stream) => {
                    self.counters.connections_accepted.add(1);
                    self.counters.connections_open.add(1);
                    return Connection {
                        stream,
                        _permit: permit,
                        counters: self.counters.clone(),
                    };
                }
                // The client has gone.
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    tracing::warn!("could not accept a connection: {error}");
                    sleep(FAILED_PAUSE).await;
                }
            }
        }
    }

    /// Hands each connection to `handle`, in a task of its own, until `stop` resolves. Then refuses
    /// new clients and waits at most `drain` for the open connections.
    pub async fn serve<F>(
        self,
        handle: impl Fn(Connection) -> F,
        stop: impl Future<Output = ()>,
        drain: Duration,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = TaskTracker::new();
        let accept_all = async {
            loop {
                tasks.spawn(handle(self.accept().await));
            }
        };
        tokio::select! {
            () = stop => {}
            () = accept_all => {}
        }
        drop(self.listener);
        tasks.close();
        if timeout(drain, tasks.wait()).await.is_err() {
            tracing::info!(
                ?drain,
                "connections were still open at the end of the drain"
            );
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

impl axum::serve::Listener for Acceptor {
    type Io = Connection;
    /// Nobody asks who a client is.
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        (Self::accept(self).await, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters.connections_open.subtract(1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::Address;

    /// Starts an echo server with a limit. It runs until the sender is dropped.
    async fn echo(connections_max: usize, drain: Duration) -> (Registry, Address, Running) {
        let address: Address = "127.0.0.1:0".parse().expect("valid");
        let listener = Listener::bind(&address).expect("a free port");
        let address = listener.address().expect("bound");
        let registry = Registry::default();
        let acceptor = Acceptor::new(listener, connections_max, &registry);
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = |connection| async {
            let (mut reader, mut writer) = split(connection);
            // The copy ends with the client, which may reset the connection.
            let _ = copy(&mut reader, &mut writer).await;
        };
        let stopped = async { drop(stopped.await) };
        let task = tokio::spawn(acceptor.serve(handle, stopped, drain));
        (registry, address, Running { stop, task })
    }

    struct Running {
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn client(address: &Address) -> TcpStream {
        let Address::Tcp(address) = address else {
            panic!("not TCP: {address}");
        };
        TcpStream::connect(address).await.expect("listening")
    }

    async fn answered(client: &mut TcpStream) {
        client.write_all(b"x").await.expect("open");
        assert_eq!(client.read_u8().await.expect("an echo"), b'x');
    }

    #[tokio::test]
    async fn a_client_beyond_the_limit_waits_and_is_not_reset() {
        let (registry, address, running) = echo(1, Duration::from_secs(60)).await;
        let mut first = client(&address).await;
        answered(&mut first).await;
        let mut second = client(&address).await;
        second.write_all(b"x").await.expect("in the backlog");
        while registry.to_json()["accept_stalls"] == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(registry.to_json()["connections_accepted"], 1);
        drop(first);
        assert_eq!(second.read_u8().await.expect("its turn"), b'x');
        drop(second);
        drop(running.stop);
        running.task.await.expect("no panic");
        let counted = registry.to_json();
        assert_eq!(counted["connections_accepted"], 2);
        assert_eq!(counted["connections_open"], 0);
    }

    #[tokio::test]
    async fn draining_refuses_new_clients_and_lets_open_ones_finish() {
        let (_, address, running) = echo(8, Duration::from_secs(60)).await;
        let mut open = client(&address).await;
        answered(&mut open).await;
        drop(running.stop);
        let Address::Tcp(tcp) = &address else {
            panic!("not TCP: {address}");
        };
        while TcpStream::connect(tcp).await.is_ok() {
            tokio::task::yield_now().await;
        }
        answered(&mut open).await;
        drop(open);
        running.task.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_drain_ends_when_its_time_is_over() {
        let drain = Duration::from_millis(20);
        let (_, address, running) = echo(8, drain).await;
        let mut open = client(&address).await;
        answered(&mut open).await;
        let stopping = Instant::now();
        drop(running.stop);
        running.task.await.expect("no panic");
        assert!(stopping.elapsed() >= drain);
    }
}
