//! Workflow commands, which GitHub shows beside a pull request when a job prints them.

use super::{of_kind, sentence, verdict};
use crate::gate::{GateResult, Overall};

/// Largest number of findings of a kind. GitHub shows ten annotations of a kind per step; the tenth
/// says how many more there are.
const OF_A_KIND_MAX: usize = 9;

/// Returns one command per line; none if everything passed.
pub fn annotations(result: &GateResult) -> String {
    let mut out = String::new();
    for (kind, command) in [
        (Overall::Regressed, "error"),
        (Overall::Inconclusive, "warning"),
    ] {
        let title = format!("hopbench gate '{}': {}", result.policy, kind.name());
        let all = result.count(kind);
        for finding in of_kind(result, kind).take(OF_A_KIND_MAX) {
            out += &line(command, &title, &sentence(finding));
        }
        if all > OF_A_KIND_MAX {
            let rest = all - OF_A_KIND_MAX;
            let message = format!("{rest} more are {}. {}", kind.name(), verdict(result));
            out += &line(command, &title, &message);
        }
    }
    out
}

fn line(command: &str, title: &str, message: &str) -> String {
    format!("::{command} title={}::{}\n", property(title), data(message))
}

/// Escapes the message after the second `::` by GitHub's rules.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes a property before the second `::`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
