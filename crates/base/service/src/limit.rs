//! The limit of connections at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest limit that can be asked for: more connections than any process has descriptors for.
pub const CONNECTIONS_MAX: usize = 1 << 20;

/// A limit of connections at a time. A permit is taken *before* a connection is accepted, so that
/// clients beyond the limit wait in the listen backlog and are not reset.
#[derive(Clone, Debug)]
pub struct ConnectionLimit(Arc<Semaphore>);

/// The right to have one connection, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl ConnectionLimit {
    /// Allows `connections_max` connections at a time.
    pub fn new(connections_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections_max)))
    }

    /// Waits until one more connection is allowed. Calls `stalled` first if it has to wait.
    pub async fn permit(&self, stalled: impl FnOnce()) -> Permit {
        let semaphore = self.0.clone();
        let permit = match semaphore.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                stalled();
                semaphore.acquire_owned().await.expect("never closed")
            }
        };
        Permit { _permit: permit }
    }
}

/// Parses how many connections there may be at a time.
///
/// # Errors
/// If it is not a number from 1 to [`CONNECTIONS_MAX`].
pub fn connections_max(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=CONNECTIONS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 1 to {CONNECTIONS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn one_more_waits_until_a_permit_is_dropped() {
        let limit = ConnectionLimit::new(1);
        let first = limit.permit(|| panic!("the limit is not reached")).await;
        let (mut stalls, mut second) = (0, None);
        {
            let mut waiting = std::pin::pin!(limit.permit(|| stalls += 1));
            let poll = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
            assert!(poll.is_pending());
            drop(first);
            second.replace(waiting.await);
        }
        assert_eq!((stalls, second.is_some()), (1, true));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(connections_max("1"), Ok(1));
        for text in ["0", "1048577", "-1", "many"] {
            let message = connections_max(text).expect_err(text);
            assert_eq!(message, "expected a number from 1 to 1048576");
        }
    }
}
