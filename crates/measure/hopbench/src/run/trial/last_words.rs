//! The last lines of a path's processes before they failed, for a message in one line.

use std::io::{self, ErrorKind};

use crate::{console::shortened, observe::http::TimedOut};

/// Number of the last lines that a message has.
const LINES: usize = 5;

/// Maximum length of a line in a message, in characters.
const LINE_CHARS_MAX: usize = 200;

/// Hint for a process that ends without an error.
pub(super) const FOREGROUND: &str = "; if it goes to the background, run it in the foreground, as \
     with HAProxy's '-db' or nginx's 'daemon off;'; if it ends after a connection, let it go on, \
     as with socat's 'fork'";

/// Hint for a path at whose front nothing listens.
const ELSEWHERE: &str = "; if its hop is running, it listens elsewhere: check the \
     address in its command and configuration; or it needs longer to start: raise \
     'start-timeout-ms'";

/// Hint for a path that takes connections and doesn't answer.
const SLOW: &str = "; it takes connections: if its hop answers as late as that, or needs \
     longer to start, raise 'start-timeout-ms'";

/// Returns what to try if a path does not answer for the first time.
pub(super) fn hint(error: &anyhow::Error) -> &'static str {
    let mut causes = error
        .chain()
        .filter_map(|it| it.downcast_ref::<io::Error>());
    match causes.any(|it| it.kind() == ErrorKind::ConnectionRefused) {
        true => ELSEWHERE,
        false if error.is::<TimedOut>() => SLOW,
        false => "",
    }
}

/// Returns the last lines, and before them the last one that mentions an error if it is none of
/// them, since many programs end with hints. `None` if there is no line.
pub(super) fn last_words(lines: &[String]) -> Option<String> {
    let is_error = |line: &String| line.to_lowercase().contains("error");
    let last = lines.len().saturating_sub(LINES);
    let error = lines.iter().rposition(is_error);
    let error = error.filter(|index| *index < last);
    let told = error.into_iter().chain(last..lines.len());
    let told: Vec<_> = told
        .map(|index| shortened(&lines[index], LINE_CHARS_MAX))
        .collect();
    (!told.is_empty()).then(|| told.join(" / "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_and_the_error_are_told() {
        let told = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            last_words(&lines)
        };
        assert_eq!(told(&[]), None);
        assert_eq!(
            told(&["starting", "gone"]).as_deref(),
            Some("starting / gone")
        );
        let lines = ["ERROR: no '--x'", "Error: 1", "2", "3", "4", "5", "6"];
        assert_eq!(
            told(&lines).as_deref(),
            Some("Error: 1 / 2 / 3 / 4 / 5 / 6")
        );
        assert_eq!(
            told(&lines[..6]).as_deref(),
            Some("Error: 1 / 2 / 3 / 4 / 5")
        );
        let long = "ö".repeat(300);
        let shortened = told(&[&long]).expect("a line");
        assert_eq!(shortened, format!("{}…", "ö".repeat(200)));
    }
}
