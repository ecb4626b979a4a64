//! A path's name with the versions of its hops, as their programs state them.

use std::collections::BTreeSet;

use crate::record::{Manifest, PathInfo, ScenarioInfo};

/// Names a path with the version of its hop, such as `socat 1.7.4.4`. Processes that the reference
/// has, too, are no hops. Hops of different versions are named one by one.
pub(in crate::report) fn named(manifest: &Manifest, scenario: &ScenarioInfo, path: &str) -> String {
    let find = |name: &str| manifest.paths.iter().find(|info| info.name == name);
    let Some(info) = find(path) else {
        return path.to_owned();
    };
    let reference = find(&scenario.reference).filter(|_| path != scenario.reference);
    let versions = versions(info, reference);
    let different: BTreeSet<&str> = versions.iter().map(|(_, version)| *version).collect();
    match different.len() {
        0 => path.to_owned(),
        1 => format!("{path} {}", versions[0].1),
        _ => {
            let each = versions
                .iter()
                .map(|(process, version)| format!("{process} {version}"));
            format!("{path} ({})", each.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Returns each hop with its version, unless it states none.
fn versions<'p>(info: &'p PathInfo, reference: Option<&PathInfo>) -> Vec<(&'p str, &'p str)> {
    let is_shared = |process: &str, receipt: &str| {
        reference.is_some_and(|it| it.receipts.get(process).is_some_and(|of| of == receipt))
    };
    let hops = info.receipts.iter();
    let hops = hops.filter(|(process, receipt)| !is_shared(process, receipt));
    hops.filter_map(|(process, receipt)| Some((process.as_str(), version(process, receipt)?)))
        .collect()
}

/// Finds a version in what a program printed: the one behind the program's name, or else the first.
fn version<'r>(process: &str, receipt: &'r str) -> Option<&'r str> {
    let is_between = |it: char| it.is_whitespace() || "/()[],;:\"'=".contains(it);
    let words = || receipt.split(is_between).filter(|word| !word.is_empty());
    let mut behind = words().skip_while(|word| !word.eq_ignore_ascii_case(process));
    // 'version' or 'v' may stand between the name and the number.
    let near = behind.by_ref().take(3).find_map(number);
    near.or_else(|| words().find_map(number))
}

/// Returns the version that a word is, without a leading `v`: digits, a dot and more.
fn number(word: &str) -> Option<&str> {
    let word = word.strip_prefix(['v', 'V']).unwrap_or(word);
    let word = word.trim_end_matches('.');
    let (major, rest) = word.split_once('.')?;
    let is_number = !major.is_empty() && major.bytes().all(|it| it.is_ascii_digit());
    (is_number && rest.starts_with(|it: char| it.is_ascii_digit())).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_print() {
        for (process, receipt, wanted) in [
            (
                "haproxy",
                "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://x/",
                "2.6.12-1+deb12u4",
            ),
            ("nginx", "nginx version: nginx/1.22.1", "1.22.1"),
            ("apache", "Server version: Apache/2.4.71 (Debian)", "2.4.71"),
            ("pingora", "pingora-peer 0.1.0 (pingora 0.9.1)", "0.9.1"),
            (
                "socat",
                "socat version 1.7.4.4 on 06 Nov 2022 14:38:14",
                "1.7.4.4",
            ),
            ("caddy", "v2.6.2 h1:abc", "2.6.2"),
            ("host", "http-tunnel-host 0.1.0", "0.1.0"),
        ] {
            assert_eq!(version(process, receipt), Some(wanted), "{receipt}");
        }
        for receipt in ["", "unknown", "v", "2.", ".5", "version 7"] {
            assert_eq!(version("hop", receipt), None, "{receipt}");
        }
    }
}
