//! A client for tests, which sees the bytes of an answer.

use std::time::Duration;

use service::{Address, Listener, Registry, connections::Acceptor, http::serve};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
};

/// Serves the application; returns a connection to it.
pub(crate) async fn connect() -> BufReader<TcpStream> {
    let address = "127.0.0.1:0".parse().expect("an address");
    let listener = Listener::bind(&address).expect("a free port");
    let Ok(Address::Tcp(address)) = listener.address() else {
        panic!("not a TCP address");
    };
    let never = std::future::pending();
    let acceptor = Acceptor::new(listener, 8, &Registry::default());
    tokio::spawn(serve(
        acceptor,
        crate::router(),
        never,
        Duration::from_secs(5),
    ));
    BufReader::new(TcpStream::connect(address).await.expect("it listens"))
}

/// Reads the lines of an answer's head.
pub(crate) async fn head(client: &mut BufReader<TcpStream>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        client.read_line(&mut line).await.expect("an answer");
        match line.trim_end() {
            "" => return lines,
            line => lines.push(line.to_lowercase()),
        }
    }
}
