//! A time limit on one thing after another, with a timer that is set as seldom as possible: nearly
//! everything ends long before its limit, and the timer is moved on only when it fires.

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
    /// To be called within a runtime.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit_ns: limit.as_nanos().try_into().unwrap_or(u64::MAX),
            timer: Box::pin(sleep(limit)),
        }
    }

    /// The future's result, unless it takes longer than the limit from `started_ns` on.
    pub(crate) async fn hold<T>(
        &mut self,
        started_ns: u64,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let end_ns = started_ns.saturating_add(self.limit_ns);
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            // Whether or not the timer has noticed.
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
