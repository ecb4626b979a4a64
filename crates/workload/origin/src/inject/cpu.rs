//! Burns CPU time in proportion to what the process uses.
//!
//! Each serving thread burns a share of what it has used itself. The clock of the whole process
//! won't do: it lags behind what other threads are just using or burning, so that threads would pay
//! late and in long pieces.

use std::{
    cell::RefCell,
    hint,
    sync::{Mutex, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use nix::{time::ClockId, unistd::gettid};

/// Requests of a thread between two looks at the clocks. A look is two or three system calls, and a
/// request takes some microseconds. A look at every request would cost about as much as it is to
/// add; at every 16th it is lost in the noise. With fewer looks, the debt would be paid in pieces
/// that are long enough to show in a p99.
const REQUESTS_PER_LOOK: u32 = 16;

/// Turns of the burning loop between two looks at the clock: some 100 ns, which is the precision.
const TURNS_PER_LOOK: u32 = 32;

/// Adds to the CPU time of the process.
pub(super) struct Burner {
    /// Fraction to burn of the CPU time that is used without burning.
    share: f64,
    acceptor: Acceptor,
}

/// The thread that set up the server and accepts connections. With short connections it uses a
/// third of all CPU time. It handles no requests, so the serving threads pay for it.
struct Acceptor {
    thread: ThreadId,
    clock: ClockId,
    debt: Mutex<Debt>,
}

/// A thread that serves.
#[derive(Default)]
struct Serving {
    /// Number of requests since the last look.
    requests: u32,
    debt: Debt,
    /// CPU time on its clock that was burned.
    burned: Duration,
}

/// CPU time that has to be burned for what a thread has used.
#[derive(Debug, Default)]
struct Debt {
    /// CPU time used at the first look. It went into starting the process, not into requests.
    start: Option<Duration>,
    paid: Duration,
}

thread_local! {
    static SERVING: RefCell<Serving> = RefCell::default();
}

impl Burner {
    /// Creates a burner. Must be called by the thread that will accept connections.
    pub(super) fn new(percent: f64) -> Self {
        Self {
            share: percent / 100.0,
            acceptor: Acceptor {
                thread: thread::current().id(),
                clock: clock_of_this_thread(),
                debt: Mutex::default(),
            },
        }
    }

    /// Counts a request. Must be called once for each, by the thread that serves it.
    pub(super) fn count_request(&self) {
        SERVING.with_borrow_mut(|serving| {
            serving.requests += 1;
            if serving.requests == REQUESTS_PER_LOOK {
                serving.requests = 0;
                self.pay(serving);
            }
        });
    }

    fn pay(&self, serving: &mut Serving) {
        let now = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let owed = serving.debt.claim(self.share, now - serving.burned);
        let burned = burn(now, owed + self.acceptor.claim(self.share));
        serving.burned += burned.total;
        serving.debt.paid += burned.excess;
    }
}

impl Acceptor {
    fn claim(&self, share: f64) -> Duration {
        if thread::current().id() == self.thread {
            // If there is only one thread, it also serves, and pays as serving threads do.
            return Duration::ZERO;
        }
        let mut debt = self.debt.lock().unwrap_or_else(PoisonError::into_inner);
        debt.claim(share, cpu_time(self.clock))
    }
}

impl Debt {
    /// Returns what is owed for `used`: the CPU time used so far in all, without what was burned.
    /// The caller must burn it.
    ///
    /// Due and paid time are sums since the first look, so that nothing is lost to rounding.
    fn claim(&mut self, share: f64, used: Duration) -> Duration {
        let start = *self.start.get_or_insert(used);
        let due = used.saturating_sub(start).mul_f64(share);
        let owed = due.saturating_sub(self.paid);
        self.paid += owed;
        owed
    }
}

struct Burned {
    total: Duration,
    /// Time burned too long. The next claim is smaller by it.
    excess: Duration,
}

/// Uses `owed` CPU time of the calling thread, whose clock was at `start`.
fn burn(start: Duration, owed: Duration) -> Burned {
    let mut total = Duration::ZERO;
    while total < owed {
        for _ in 0..TURNS_PER_LOOK {
            hint::spin_loop();
        }
        total = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID).saturating_sub(start);
    }
    Burned {
        total,
        excess: total.saturating_sub(owed),
    }
}

/// Returns the clock by which other threads can tell how much CPU time this one has used.
///
/// POSIX has `pthread_getcpuclockid` for this, which takes a raw thread handle. On Linux the
/// clock's number is made from the thread's number, and that is part of the kernel's interface.
fn clock_of_this_thread() -> ClockId {
    /// Bits for a scheduler's clock (2) of a single thread (4).
    const OF_THREAD: i32 = 2 | 4;
    ClockId::from_raw((!gettid().as_raw() << 3) | OF_THREAD)
}

fn cpu_time(clock: ClockId) -> Duration {
    let time = clock.now().expect("a clock of a thread that runs");
    time.into()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn what_was_used_before_the_first_look_costs_nothing() {
        let mut debt = Debt::default();
        assert_eq!(debt.claim(0.5, us(9_000_000)), us(0));
        assert_eq!(debt.claim(0.5, us(9_000_100)), us(50));
        assert_eq!(debt.claim(0.5, us(9_000_100)), us(0));
    }

    /// Burning ends late, and the excess is not burned again.
    #[test]
    fn the_burned_is_the_share_of_the_used() {
        for share in [0.05, 0.1, 0.5, 10.0] {
            let mut debt = Debt::default();
            let (mut used, mut burned) = (us(7), us(0));
            debt.claim(share, used);
            for round in 0..1_000 {
                used += us(80 + round % 37);
                let owed = debt.claim(share, used);
                burned += owed;
                if !owed.is_zero() {
                    debt.paid += us(1);
                    burned += us(1);
                }
            }
            let found = burned.as_secs_f64() / used.as_secs_f64();
            assert!((found / share - 1.0).abs() < 0.01, "{found} for {share}");
        }
    }

    /// This thread serves, and another one stands for the acceptor. Both clocks count.
    #[test]
    fn requests_burn_for_the_thread_that_serves_and_for_the_one_that_accepts() {
        let turn = || burn(cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID), us(1_000));
        let (ask, asked) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let accepting = thread::spawn(move || {
            let burner = Arc::new(Burner::new(50.0));
            for () in asked {
                turn();
                answer.send(burner.clone()).expect("the test waits");
            }
        });
        let accept_and_serve = || {
            ask.send(()).expect("it runs");
            let burner = answered.recv().expect("it runs");
            turn();
            (0..REQUESTS_PER_LOOK).for_each(|_| burner.count_request());
            SERVING.with_borrow(|serving| serving.burned)
        };
        let burned = accept_and_serve();
        let start = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let rounds = 20;
        let burned = (0..rounds).fold(burned, |_, _| accept_and_serve()) - burned;
        let used = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID) - start - burned;
        drop(ask);
        accepting.join().expect("no panic");

        // Both threads have done the same work, apart from the channel.
        let share = burned.as_secs_f64() / used.as_secs_f64();
        assert!((0.8..1.2).contains(&share), "{share}, not twice a half");
    }

    #[test]
    fn a_thread_s_clock_is_its_own() {
        let clock = clock_of_this_thread();
        let before = cpu_time(clock);
        burn(cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID), us(300));
        let own = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID);
        assert!(before + us(300) <= own && own <= cpu_time(clock));
    }
}
