//! Trials and manifests that are damaged or made up, and every report of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    hopbench_analysis::hostile::attack_records(moves);
});
