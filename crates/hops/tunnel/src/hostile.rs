//! Hostile peers, for tests and for fuzzing. Tests make up their moves at random; a fuzzer searches
//! for new ones.

use std::{sync::LazyLock, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

pub use crate::{
    framed::hostile::attack_session,
    handoff::hostile::{
        attack_handoff_asker, attack_handoff_host, attack_handoff_lender, attack_handoff_plugin,
    },
    rendezvous::hostile::attack_handshake,
    ring::hostile::{attack_host, attack_plugin},
};

/// Time-out of a watchdog. It is far longer than anything here takes, and no assertion about speed.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    let runtime = builder.build().expect("a runtime");
    // A fuzzer lacks the start-up code of a Rust program, which ignores SIGPIPE. With this handler,
    // writing to a peer that has gone is an error and doesn't end the process.
    runtime.block_on(async { drop(signal(SignalKind::pipe()).expect("a handler")) });
    runtime
});

/// Makes up moves of `bytes` bytes by xorshift64*. The same seed gives the same moves.
#[cfg(test)]
pub(crate) fn made_up(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

/// Returns the number of rounds of a test, which `HOPBENCH_HOSTILE_ROUNDS` can set.
#[cfg(test)]
pub(crate) fn rounds() -> u64 {
    let text = std::env::var("HOPBENCH_HOSTILE_ROUNDS").ok();
    text.map_or(60, |text| text.parse().expect("a number"))
}
