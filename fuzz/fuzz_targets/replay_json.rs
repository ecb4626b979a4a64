//! JSON, and pointers into it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    replay_proxy::hostile::attack_json(bytes);
});
