//! The output of a load generator.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    hopbench::fuzzing::read_load(text);
});
