//! Requests as the WAF walks and decodes them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    edge_node::hostile::attack_request(bytes);
});
