//! Handles wake-ups of a task by itself, without the runtime.
//!
//! The two halves of an HTTP connection signal each other by waking the other's task. Here both are
//! in one task, so each signal would make the runtime run the running task again. [`OwnWakes`]
//! polls its future again at once instead, and passes on only wake-ups from outside.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Maximum number of polls before other tasks get their turn. An answer that has arrived takes
/// three.
const ROUNDS_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct OwnWakes {
    inside: Arc<Inside>,
    waker: Waker,
}

/// State used by one thread only. It is atomic because a waker must be.
#[derive(Debug)]
struct Inside {
    polling: AtomicBool,
    again: AtomicBool,
    task: Mutex<Waker>,
}

impl OwnWakes {
    pub(crate) fn new() -> Self {
        let inside = Arc::new(Inside {
            polling: AtomicBool::new(false),
            again: AtomicBool::new(false),
            task: Mutex::new(Waker::noop().clone()),
        });
        let waker = Arc::clone(&inside).into();
        Self { inside, waker }
    }

    /// Polls until there is a result or nothing more to do for now.
    pub(crate) fn poll<T>(
        &self,
        context: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.inside.set_task(context.waker());
        self.inside.polling.store(true, Relaxed);
        let mut result = Poll::Pending;
        for _ in 0..ROUNDS_MAX {
            self.inside.again.store(false, Relaxed);
            result = poll(&mut Context::from_waker(&self.waker));
            if result.is_ready() || !self.inside.again.load(Relaxed) {
                break;
            }
        }
        self.inside.polling.store(false, Relaxed);
        if result.is_pending() && self.inside.again.load(Relaxed) {
            context.waker().wake_by_ref();
        }
        result
    }
}

impl Inside {
    fn set_task(&self, waker: &Waker) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.will_wake(waker) {
            task.clone_from(waker);
        }
    }
}

impl Wake for Inside {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.polling.load(Relaxed) {
            self.again.store(true, Relaxed);
        } else {
            let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its wake-ups.
    #[derive(Default)]
    struct Task(Mutex<usize>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            *self.0.lock().expect("no panic") += 1;
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            *self.0.lock().expect("no panic")
        }
    }

    #[test]
    fn wake_ups_from_inside_are_rounds() {
        let (wakes, task) = (OwnWakes::new(), Arc::new(Task::default()));
        let waker = Arc::clone(&task).into();
        let mut rounds = 0;
        let result = wakes.poll(&Context::from_waker(&waker), |context| {
            rounds += 1;
            context.waker().wake_by_ref();
            if rounds == 3 {
                Poll::Ready("done")
            } else {
                Poll::Pending
            }
        });
        assert_eq!((result, rounds, task.woken()), (Poll::Ready("done"), 3, 0));
    }

    #[test]
    fn wake_ups_from_outside_pass() {
        let (wakes, task) = (OwnWakes::new(), Arc::new(Task::default()));
        let waker = Arc::clone(&task).into();
        let mut kept = None;
        let result: Poll<()> = wakes.poll(&Context::from_waker(&waker), |context| {
            kept = Some(context.waker().clone());
            Poll::Pending
        });
        assert_eq!((result, task.woken()), (Poll::Pending, 0));
        kept.expect("polled").wake();
        assert_eq!(task.woken(), 1);
    }

    #[test]
    fn rounds_have_an_end() {
        let (wakes, task) = (OwnWakes::new(), Arc::new(Task::default()));
        let waker = Arc::clone(&task).into();
        let mut rounds = 0;
        let result: Poll<()> = wakes.poll(&Context::from_waker(&waker), |context| {
            rounds += 1;
            context.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!((result, rounds), (Poll::Pending, ROUNDS_MAX));
        assert_eq!(task.woken(), 1, "it is run again, later");
    }
}
