//! A host on ring whose plugin writes what it likes into the segment.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
});

fuzz_target!(|moves: &[u8]| {
    RUNTIME.block_on(tunnel::hostile::attack_host(moves));
});
