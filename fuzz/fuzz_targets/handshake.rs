//! A host or a plugin whose peer says and hands over what it likes.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    tunnel::hostile::attack_handshake(moves);
});
