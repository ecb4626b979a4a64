//! The scheduling policy of a thread.

use std::io;

/// Puts this thread under `SCHED_BATCH`, or back under the usual policy. Under `SCHED_BATCH` a
/// woken thread doesn't preempt the one that runs on its core. So a thread that passes on what
/// others produce runs less often, and finds more work each time. A policy that somebody else has
/// chosen for this thread stays.
///
/// # Errors
/// If the thread is neither scheduled as usual nor as this function left it, if the system doesn't
/// know `SCHED_BATCH`, or if a sandbox forbids to ask for it.
pub fn set_sched_batch(is_on: bool) -> io::Result<()> {
    let (before, after) = match is_on {
        true => (libc::SCHED_OTHER, libc::SCHED_BATCH),
        false => (libc::SCHED_BATCH, libc::SCHED_OTHER),
    };
    // SAFETY: no memory is touched; 0 is this thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy >= 0 && policy != before {
        return Err(io::Error::other(format!(
            "the thread's policy is {policy}, expected {before}"
        )));
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a structure that lives as long as the call; 0 is this thread.
    let returned = unsafe { libc::sched_setscheduler(0, after, &raw const parameters) };
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "the system's scheduler")]
    fn the_policy_is_this_threads_alone() {
        fn policy() -> Option<String> {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("readable");
            // The 41st field; the second may contain spaces.
            let (_, rest) = stat.rsplit_once(") ")?;
            rest.split(' ').nth(38).map(str::to_owned)
        }
        let in_batches = std::thread::spawn(|| {
            set_sched_batch(true).expect("allowed");
            let chosen = policy();
            assert!(
                set_sched_batch(true).is_err(),
                "it may be somebody else's choice"
            );
            set_sched_batch(false).expect("allowed");
            [chosen, policy()]
        });
        let normal = policy();
        let chosen = in_batches.join().expect("ended");
        assert_eq!(chosen.map(Option::unwrap_or_default), ["3", "0"]);
        assert_eq!(normal.as_deref(), Some("0"));
    }
}
