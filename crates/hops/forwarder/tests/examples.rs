//! Goal: the examples are what is measured. Method: the examples of tunings are compared with the
//! configurations of their paths, but for the ports.

use std::{fs, path::Path};

/// The parts of a configuration that a path has in common with its example: the keys of the file,
/// and of the one route.
fn route(text: &str) -> (toml::Table, toml::Table) {
    let mut file: toml::Table = text.parse().expect("TOML");
    let routes = file.remove("routes").expect("a route");
    let mut route = routes[0].as_table().expect("a table").clone();
    for port in ["listen_port", "target_port", "target_addr"] {
        route.remove(port);
        file.remove(port);
    }
    (file, route)
}

#[test]
fn the_tunings_are_those_of_the_paths() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let paths = root.join("crates/measure/hopbench/catalog/paths/forwarders");
    for (example, path) in [
        ("05-throughput", "forwarder-throughput"),
        ("06-low-latency", "forwarder-latency"),
        ("07-low-memory", "forwarder-memory"),
    ] {
        let example = root.join(format!("crates/hops/forwarder/examples/{example}.toml"));
        let example = fs::read_to_string(example).expect("an example");
        let path = fs::read_to_string(paths.join(format!("{path}.toml"))).expect("a path");
        let path: toml::Table = path.parse().expect("TOML");
        let content = path["file"][0]["content"]
            .as_str()
            .expect("a configuration");
        let content = content
            .replace("{{port:front}}", "1")
            .replace("{{port:origin}}", "2");
        assert_eq!(route(&example), route(&content));
    }
}
