//! A deadline that moves often and passes rarely.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that is set for each request and hardly ever reached.
///
/// Moving it costs a store: the timer of the runtime stays where it is, and is moved only when it
/// fires too early.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets the deadline so far from now.
    pub(crate) fn set(&mut self, after: Duration) {
        self.set_at(Instant::now() + after);
    }

    /// Sets the deadline.
    pub(crate) fn set_at(&mut self, at: Instant) {
        self.at = Some(at);
        // A timer that would fire too late is worth nothing.
        if self
            .timer
            .as_ref()
            .is_some_and(|timer| timer.deadline() > at)
        {
            self.timer = None;
        }
    }

    /// Makes the deadline never pass.
    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    /// Is ready once the deadline has passed. It then stays ready until it is set again.
    pub(crate) fn poll_passed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_deadline_passes_when_it_was_last_set_to() {
        let begin = Instant::now();
        let mut deadline = Deadline::default();
        for (set, passes) in [(50, 50), (200, 250), (10, 260)] {
            deadline.set(Duration::from_millis(set));
            poll_fn(|context| deadline.poll_passed(context)).await;
            assert_eq!(begin.elapsed(), Duration::from_millis(passes));
        }
        // It is moved while somebody waits: first later, then sooner.
        for (first, then) in [(10, 70), (70, 10)] {
            let begin = Instant::now();
            deadline.set(Duration::from_millis(first));
            let waited = poll_fn(|context| Poll::Ready(deadline.poll_passed(context))).await;
            assert!(waited.is_pending());
            deadline.set(Duration::from_millis(then));
            poll_fn(|context| deadline.poll_passed(context)).await;
            assert_eq!(begin.elapsed(), Duration::from_millis(then));
        }
    }
}
