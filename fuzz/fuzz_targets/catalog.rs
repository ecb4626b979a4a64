//! Paths, scenarios, cases and policies in TOML.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    hopbench::fuzzing::read_definition(text);
});
