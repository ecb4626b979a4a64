//! Durations as people write them.

use std::time::Duration;

/// Parses seconds, minutes or hours, such as `90s`, `5m` or `2h`.
///
/// # Errors
/// Fails if the text has none of these units, or is not between a second and a week.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    const SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        Some(number * seconds)
    });
    match parsed {
        Some(seconds) if (1.0..=SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err("expected seconds, minutes or hours, '1s' to '168h'".to_owned()),
    }
}
