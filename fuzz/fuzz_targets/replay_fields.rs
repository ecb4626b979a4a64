//! Heads of answers, and the fields that say how they may be cached.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    replay_proxy::hostile::attack_fields(bytes);
});
