//! Configurations of the forwarder.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    forwarder::hostile::attack_config(text);
});
