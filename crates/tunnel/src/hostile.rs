//! Peers that do what they like: for tests, which make their moves up, and for fuzzing, which finds
//! new ones.

use std::{sync::LazyLock, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

pub use crate::{
    framed::hostile::attack_session,
    rendezvous::hostile::attack_handshake,
    ring::hostile::{attack_host, attack_plugin},
};

/// Far beyond what anything here takes: a watchdog, not an assertion.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    let runtime = builder.build().expect("a runtime");
    // What Rust's own beginning of a program does, which a fuzzer's hasn't: writing to a peer that
    // has gone is an error, and not this process's end.
    runtime.block_on(async { drop(signal(SignalKind::pipe()).expect("a handler")) });
    runtime
});

/// Moves that are made up, of so many bytes: xorshift64*, the same for the same seed.
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

/// Rounds of a test; `HOPBENCH_HOSTILE_ROUNDS` for more.
#[cfg(test)]
pub(crate) fn rounds() -> u64 {
    let text = std::env::var("HOPBENCH_HOSTILE_ROUNDS").ok();
    text.map_or(60, |text| text.parse().expect("a number"))
}
