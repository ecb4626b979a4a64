//! Messages of other nodes, and what they do to counters.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    edge_node::hostile::attack_exchange(bytes);
});
