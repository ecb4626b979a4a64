//! A time limit for one operation after another that rarely sets its timer. Nearly every operation
//! ends long before its limit, so the timer is moved only when it fires.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::pacer::now_ns;

#[derive(Debug)]
pub(crate) struct Deadline {
    limit_ns: u64,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Starts the timer. Must be called within a tokio runtime.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit_ns: limit.as_nanos().try_into().unwrap_or(u64::MAX),
            timer: Box::pin(sleep(limit)),
        }
    }

    /// Returns the future's result, or `None` if it is not ready within the limit after
    /// `started_ns`.
    pub(crate) async fn hold<T>(
        &mut self,
        started_ns: u64,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let end_ns = started_ns.saturating_add(self.limit_ns);
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            // The timer may not have fired yet.
            Poll::Ready(result) => Poll::Ready((now_ns() <= end_ns).then_some(result)),
            Poll::Pending => self.poll_passed(end_ns, context).map(|()| None),
        })
        .await
    }

    fn poll_passed(&mut self, end_ns: u64, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let left_ns = end_ns.saturating_sub(now_ns());
            if left_ns == 0 {
                return Poll::Ready(());
            }
            let end = Instant::now() + Duration::from_nanos(left_ns);
            self.timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}
