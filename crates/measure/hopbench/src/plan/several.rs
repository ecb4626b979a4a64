//! Tells scenarios from paths where a command line may have several values after one `--path`.

use crate::{catalog::Catalog, plan::selection::Overrides};

/// Returns the names of scenarios, and the overrides with those names that are of paths instead:
/// they are what follows the first value of `--path`, as in `--path caddy nginx-http`. Without a
/// `--path`, and for names that are of neither, nothing changes, so that the mistake is named.
pub(crate) fn apart(
    catalog: &Catalog,
    names: &[String],
    overrides: &Overrides,
) -> (Vec<String>, Overrides) {
    let mut overrides = overrides.clone();
    let mut scenarios = names.to_vec();
    if overrides.paths.is_empty() {
        return (scenarios, overrides);
    }
    let is_path = |name: &str| catalog.scenario(name).is_err() && catalog.paths(name).is_ok();
    scenarios.retain(|name| !is_path(name));
    // Without a scenario there is nothing to measure, and the message about that names a path.
    if !scenarios.is_empty() {
        let more = names.iter().filter(|name| !scenarios.contains(name));
        overrides.paths.extend(more.cloned());
        return (scenarios, overrides);
    }
    (names.to_vec(), overrides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_paths_may_follow_one_option() {
        let catalog = Catalog::built_in().expect("valid");
        let told_apart = |names: &[&str], paths: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            let overrides = Overrides {
                paths: owned(paths),
                ..Overrides::default()
            };
            let (scenarios, overrides) = apart(&catalog, &owned(names), &overrides);
            (scenarios, overrides.paths)
        };
        let names = ["quick-look", "haproxy-tcp", "tag:tunnel"];
        let (scenarios, paths) = told_apart(&names, &["socat"]);
        assert_eq!(scenarios, ["quick-look"]);
        assert_eq!(paths, ["socat", "haproxy-tcp", "tag:tunnel"]);
        // What is neither is left, as is all without the option.
        assert_eq!(
            told_apart(&["quick-look", "nothing"], &["socat"]).0,
            ["quick-look", "nothing"]
        );
        assert_eq!(
            told_apart(&["quick-look", "socat"], &[]).0,
            ["quick-look", "socat"]
        );
        assert_eq!(told_apart(&["haproxy-tcp"], &["socat"]).0, ["haproxy-tcp"]);
    }
}
