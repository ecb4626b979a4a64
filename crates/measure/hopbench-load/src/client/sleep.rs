//! Records when a thread had nothing to do but wait.
//!
//! If a request found no connection free, the path is at fault if this program was waiting for the
//! path meanwhile. If this program never waited, because it was busy or had no core, it can't tell:
//! the answers may have been there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The last sleep of a thread. The runtime writes it on the same thread that reads it. It is atomic
/// only because the runtime requires that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sleeps(Arc<Sleep>);

#[derive(Debug, Default)]
struct Sleep {
    begin_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Sleeps {
    pub(crate) fn begin(&self, now_ns: u64) {
        self.0.begin_ns.store(now_ns, Relaxed);
    }

    pub(crate) fn end(&self, now_ns: u64) {
        self.0.end_ns.store(now_ns, Relaxed);
    }

    pub(crate) fn begin_ns(&self) -> u64 {
        self.0.begin_ns.load(Relaxed)
    }

    /// Returns when the last intended sleep ended: no later than the timer was due. After that the
    /// thread was late.
    pub(crate) fn until_ns(&self, timer_due_ns: u64) -> u64 {
        let begin_ns = self.0.begin_ns.load(Relaxed);
        let end_ns = self.0.end_ns.load(Relaxed);
        end_ns.min(timer_due_ns.max(begin_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversleeping_is_not_waiting() {
        let sleeps = Sleeps::default();
        sleeps.begin(100);
        sleeps.end(150);
        assert_eq!(sleeps.until_ns(200), 150, "an answer woke it");
        sleeps.end(900);
        assert_eq!(sleeps.until_ns(200), 200, "its timer was due then");
        assert_eq!(sleeps.until_ns(0), 100, "it was late already");
    }
}
