//! Connections that have changed to another protocol, such as WebSocket.

use std::{future::poll_fn, task::Poll};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional_with_sizes},
    task::spawn_local,
};

use crate::pool::Lease;

/// Size of the buffer for each direction, in bytes. Messages of such protocols are small.
const BUFFER_BYTES: usize = 8 * 1024;

/// Relays between a client and an upstream once both have changed the protocol.
pub(crate) fn start(client: OnUpgrade, mut lease: Lease) {
    spawn_local(async move {
        poll_fn(|context| match lease.connection.drive(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        let (mut upstream, early) = lease.into_stream();
        let client = match client.await {
            Ok(client) => client,
            Err(error) => return tracing::debug!("a client did not change the protocol: {error}"),
        };
        let mut client = TokioIo::new(client);
        let relayed = async {
            client.write_all(&early).await?;
            copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES)
                .await
        };
        if let Err(error) = relayed.await {
            tracing::debug!("an upgraded connection failed: {error}");
        }
    });
}
