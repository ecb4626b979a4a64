//! A host or a plugin whose peer sends what it likes over a stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    tunnel::hostile::attack_session(moves);
});
