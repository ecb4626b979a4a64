//! A proxy that sends what it likes where a PROXY protocol header is expected.
#![no_main]

libfuzzer_sys::fuzz_target!(|moves: &[u8]| {
    service::proxy_protocol::hostile::attack_proxy_protocol(moves);
});
