//! A peer on handoff that passes or says what it likes. The first byte chooses the end.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    // An error is an answer.
    let _ = match moves.split_first() {
        Some((0, moves)) => tunnel::hostile::attack_handoff_plugin(moves),
        Some((1, moves)) => tunnel::hostile::attack_handoff_host(moves),
        Some((2, moves)) => tunnel::hostile::attack_handoff_asker(moves),
        Some((_, moves)) => tunnel::hostile::attack_handoff_lender(moves),
        None => Ok(()),
    };
});
