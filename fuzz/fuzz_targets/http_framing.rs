//! Requests that hyper and our check of their framing must read alike.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    http_proxy::hostile::attack_framing(bytes);
});
