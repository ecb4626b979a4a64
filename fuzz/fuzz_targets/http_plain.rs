//! Requests and answers that are passed on without hyper, which must mean the same afterwards.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    http_proxy::hostile::attack_plain(bytes);
});
