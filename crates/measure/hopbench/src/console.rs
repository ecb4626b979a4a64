//! Messages to the user, on stderr; stdout is for results.

use std::io::Write;

/// Prints a line on stderr. A run goes on even if nobody reads it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Formats a duration in seconds, minutes or hours, whichever is readable.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
