//! External figures as a table, apart from everything that was measured here.

use std::collections::BTreeSet;

use super::{
    sheet::{Entry, Medium, Table, Tone},
    text::{escape, milliseconds, tenths},
};
use crate::external::External;

/// Heading of the section.
pub(super) const HEADING: &str = "External figures";

/// Returns external figures for a terminal. Empty without any.
pub fn terminal(figures: &[External]) -> String {
    text(figures, Medium::Terminal)
}

/// Returns external figures as Markdown. Empty without any.
pub fn markdown(figures: &[External]) -> String {
    text(figures, Medium::Markdown)
}

fn text(figures: &[External], medium: Medium) -> String {
    if figures.is_empty() {
        return String::new();
    }
    let (caption, sheet) = (caption(figures), sheet(figures));
    let caption = match medium {
        Medium::Markdown => escape(&caption),
        Medium::Terminal => caption,
    };
    format!("\n## {HEADING}\n\n{caption}\n\n{}", sheet.text(medium))
}

/// Says who measured the figures, and what they are not.
pub(super) fn caption(figures: &[External]) -> String {
    let engines: BTreeSet<String> = figures.iter().map(External::engine_name).collect();
    let engines: Vec<String> = engines.into_iter().collect();
    format!(
        "external: measured by {}; not comparable, no ratio, not gated",
        engines.join(" and ")
    )
}

/// Returns the figures, each in a row.
pub(super) fn sheet(figures: &[External]) -> Table {
    let columns = [
        "engine",
        "scenario",
        "target",
        "generators",
        "requests",
        "failures",
        "dropped",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "max ms",
        "file",
    ];
    let mut sheet = Table::new(3, columns).with_notes(1);
    figures.iter().for_each(|figures| sheet.push(row(figures)));
    sheet
}

fn row(figures: &External) -> Vec<Entry> {
    let text = |text: &Option<String>| Entry::from(text.clone().unwrap_or_else(none));
    let count = |count: Option<u64>| count.map_or_else(none, |count| count.to_string());
    let bad = |count: Option<u64>, text: String| match count {
        Some(1..) => Entry::new(text, Tone::Bad),
        _ => text.into(),
    };
    let ms = |us: Option<f64>| Entry::from(us.map_or_else(none, milliseconds));
    vec![
        figures.engine_name().into(),
        text(&figures.scenario),
        text(&figures.target),
        count(figures.generators).into(),
        figures.requests.to_string().into(),
        bad(figures.failures, count(figures.failures)),
        bad(figures.dropped, count(figures.dropped)),
        figures.rate_rps.map_or_else(none, tenths).into(),
        ms(figures.p50_us),
        ms(figures.p95_us),
        ms(figures.p99_us),
        ms(figures.max_us),
        figures.file.clone().into(),
    ]
}

fn none() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caption_says_what_they_are_not() {
        let figures = External {
            engine: "locust".to_owned(),
            engine_version: Some("2.47.0".to_owned()),
            file: "a|b<c>.json".to_owned(),
            requests: 1_600,
            rate_rps: Some(200.04),
            p50_us: Some(912.0),
            ..External::default()
        };
        insta::assert_snapshot!("external", markdown(&[figures]));
        assert_eq!(markdown(&[]), "");
        assert_eq!(terminal(&[]), "");
    }
}
