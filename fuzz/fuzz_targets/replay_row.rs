//! Rows of the replay proxy's store.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    replay_proxy::hostile::attack_row(bytes);
});
