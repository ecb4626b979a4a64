//! How a thread shares its core.

use std::io;

/// Whether this thread, when it is woken, is to wait until who runs on the core has had its while,
/// instead of interrupting it. For threads that pass on what others make: they find more of it when
/// they run, and are run less often. What somebody else has chosen for this thread stays.
///
/// # Errors
/// If the thread is neither scheduled as usual nor as this function left it; if the system doesn't
/// know the policy `SCHED_BATCH`, or a sandbox forbids to ask for it.
pub fn run_in_batches(yes: bool) -> io::Result<()> {
    let (before, after) = match yes {
        true => (libc::SCHED_OTHER, libc::SCHED_BATCH),
        false => (libc::SCHED_BATCH, libc::SCHED_OTHER),
    };
    // SAFETY: no memory is touched; 0 is this thread.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy >= 0 && policy != before {
        return Err(io::Error::other(format!(
            "its policy is {policy}, expected {before}"
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
            run_in_batches(true).expect("allowed");
            let chosen = policy();
            assert!(
                run_in_batches(true).is_err(),
                "it may be somebody else's choice"
            );
            run_in_batches(false).expect("allowed");
            [chosen, policy()]
        });
        let normal = policy();
        let chosen = in_batches.join().expect("ended");
        assert_eq!(chosen.map(Option::unwrap_or_default), ["3", "0"]);
        assert_eq!(normal.as_deref(), Some("0"));
    }
}
