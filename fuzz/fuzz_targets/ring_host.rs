//! A host on ring whose plugin writes what it likes into the segment.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    tunnel::hostile::attack_host(moves);
});
