//! A limit of the time in which nothing moves.

use std::{pin::Pin, task::Context, time::Duration};

use tokio::time::{Sleep, sleep};

/// A limit of the time in which nothing moves. It begins with the first [`Self::poll`].
///
/// Nothing is done per byte: a timer looks several times per period whether anything has moved
/// since its last look. So the limit is exceeded by up to one look.
#[derive(Debug)]
pub(super) struct Limit {
    period: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that had been carried at the last look.
    carried: usize,
    still_looks: u32,
}

/// Looks per period. More would wake idle connections more often, fewer would exceed the limit by
/// more.
const LOOKS: u32 = 4;

impl Limit {
    /// Without a period, there is no limit.
    pub(super) fn new(period: Option<Duration>) -> Self {
        Self {
            period,
            timer: None,
            carried: 0,
            still_looks: 0,
        }
    }

    /// Returns whether nothing has moved for the whole period. If not, the task is woken for the
    /// next look.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, carried: usize) -> bool {
        let Some(period) = self.period else {
            return false;
        };
        let pause = period / LOOKS;
        let timer = self.timer.get_or_insert_with(|| {
            self.carried = carried;
            Box::pin(sleep(pause))
        });
        while timer.as_mut().poll(context).is_ready() {
            let has_moved = carried != self.carried;
            self.carried = carried;
            self.still_looks = if has_moved { 0 } else { self.still_looks + 1 };
            if self.still_looks == LOOKS {
                return true;
            }
            timer.set(sleep(pause));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::time::{Instant, advance};

    use super::*;

    const PERIOD: Duration = Duration::from_secs(8);

    /// Returns after how many seconds the limit is reached, if `carried` is so at each second.
    fn reached_at(limit: Option<Duration>, carried: impl Fn(u64) -> usize) -> Option<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut limit = Limit::new(limit);
            let started = Instant::now();
            let mut context = Context::from_waker(Waker::noop());
            for second in 0..100 {
                if limit.poll(&mut context, carried(second)) {
                    return Some(started.elapsed().as_secs());
                }
                advance(Duration::from_secs(1)).await;
            }
            None
        })
    }

    #[test]
    fn it_is_reached_a_period_after_the_last_byte() {
        let is_between = |at: Option<u64>, from: u64| {
            let late = from + PERIOD.as_secs() / u64::from(LOOKS) + 1;
            assert!(at.is_some_and(|at| (from..=late).contains(&at)), "{at:?}");
        };
        is_between(reached_at(Some(PERIOD), |_| 7), 8);
        let until_30 = |second: u64| usize::try_from(second.min(30)).expect("small");
        is_between(reached_at(Some(PERIOD), until_30), 38);
    }

    #[test]
    fn without_a_period_or_with_progress_it_is_never_reached() {
        assert_eq!(reached_at(None, |_| 7), None);
        let always = |second: u64| usize::try_from(second / 3).expect("small");
        assert_eq!(reached_at(Some(PERIOD), always), None);
    }
}
