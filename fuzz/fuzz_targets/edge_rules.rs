//! Rules of a WAF as a careless writer makes them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    edge_node::hostile::attack_rules(bytes);
});
