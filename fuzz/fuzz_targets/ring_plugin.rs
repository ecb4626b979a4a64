//! A plugin on ring whose host writes what it likes into the segment.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    tunnel::hostile::attack_plugin(moves);
});
