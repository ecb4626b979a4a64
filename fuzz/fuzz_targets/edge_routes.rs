//! Tables of routes, and paths that are looked up in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    edge_node::hostile::attack_routes(bytes);
});
