//! Takes a header from a connection, and nothing else.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::{AcceptedVersions, Progress, ProxyHeader, ReadError, error::excerpt, progress};

/// Reads a header from the beginning of a connection, and not one byte of what follows. So the
/// stream needs no buffer in front of it afterwards, and splice(2) still works.
///
/// A connection that begins with something else is refused as soon as that shows. Then, as after
/// any other error, all that is left to do is to close it.
///
/// # Errors
/// If the connection begins with no header, ends within it, or hasn't sent all of it within
/// `at_most`.
pub async fn read<S>(
    stream: &mut S,
    accepted: AcceptedVersions,
    at_most: Duration,
) -> Result<ProxyHeader, ReadError>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = Vec::new();
    match timeout(at_most, receive(stream, accepted, &mut bytes)).await {
        Ok(result) => result,
        Err(_) => Err(ReadError::Late {
            found: excerpt(&bytes),
            at_most,
        }),
    }
}

async fn receive<S>(
    stream: &mut S,
    accepted: AcceptedVersions,
    bytes: &mut Vec<u8>,
) -> Result<ProxyHeader, ReadError>
where
    S: AsyncRead + Unpin,
{
    loop {
        let needed = match progress(bytes, accepted)? {
            Progress::Whole(header, _) => return Ok(header),
            Progress::Partial { needed } => needed,
        };
        // No header ends within these bytes, so none of them can belong to what follows.
        let needed = u64::try_from(needed).expect("a header is short");
        if (&mut *stream).take(needed).read_buf(bytes).await? == 0 {
            let found = excerpt(bytes);
            return Err(ReadError::Closed { found });
        }
    }
}
