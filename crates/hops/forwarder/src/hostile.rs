//! Configurations as a hostile or careless writer makes them.

use crate::config::{Config, Overrides};

/// Reads a configuration. Returns whether it is valid. Whatever it says, nothing panics.
pub fn attack_config(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else {
        return false;
    };
    let config = match Config::parse(text, Overrides::default()) {
        Ok(config) => config,
        Err(mistake) => {
            let said = mistake.to_string();
            assert!(!said.contains(char::is_control), "not one line: {said}");
            return false;
        }
    };
    // A table is built of every valid configuration, also in place of itself.
    let table = crate::table::build(&config, &Default::default(), None);
    let again = crate::table::build(&config, &table, None);
    assert_eq!(
        table.keys().collect::<Vec<_>>(),
        again.keys().collect::<Vec<_>>()
    );
    true
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// The names of the seeds say whether they are valid.
    #[test]
    fn the_seeds_are_taken_or_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let mut taken = 0;
        for folder in [
            "fuzz/seeds/forwarder_config",
            "crates/hops/forwarder/examples",
        ] {
            for file in fs::read_dir(root.join(folder)).expect(folder) {
                let file = file.expect("readable").path();
                let is_bad = file
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("bad-"));
                let text = fs::read(&file).expect("readable");
                assert_eq!(attack_config(&text), !is_bad, "{}", file.display());
                taken += 1;
            }
        }
        assert!(taken > 10, "{taken}");
    }
}
