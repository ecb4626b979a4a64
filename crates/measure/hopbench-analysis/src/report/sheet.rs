//! A table of a report, before it becomes text or HTML.

mod fit;

use std::{iter, ops::Range};

use maud::{Markup, html};

use super::text::{self, escape};
use crate::told::Told;

/// The medium that a report is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Medium {
    Markdown,
    Terminal,
}

/// Rows of entries below a heading.
#[derive(Debug)]
pub(super) struct Table {
    /// Which columns hold metrics. The others hold text.
    metrics: Range<usize>,
    /// How many of the first columns tell rows apart.
    keys: usize,
    columns: Vec<String>,
    rows: Vec<Vec<Entry>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    text: String,
    tone: Tone,
}

/// How much attention an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Equal, not told apart, or with too few blocks to tell.
    Faint,
    /// Something failed.
    Bad,
}

impl Table {
    /// Makes a table whose first columns hold names, and the others metrics.
    pub(super) fn new<C: Into<String>>(names: usize, columns: impl IntoIterator<Item = C>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        Self {
            metrics: names..columns.len(),
            keys: names,
            columns,
            rows: Vec::new(),
        }
    }

    /// Lets this many of the first columns tell rows apart, such as a path and a number of
    /// connections. They are repeated where a table is continued.
    pub(super) fn with_keys(mut self, keys: usize) -> Self {
        self.keys = keys;
        self
    }

    /// Lets the last columns hold text.
    pub(super) fn with_notes(mut self, notes: usize) -> Self {
        self.metrics.end -= notes;
        self
    }

    /// # Panics
    /// Panics if the row is not as long as the heading.
    pub(super) fn push(&mut self, row: Vec<Entry>) {
        assert_eq!(row.len(), self.columns.len(), "{row:?}");
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the texts of all entries.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().flatten().map(|entry| entry.text.as_str())
    }

    pub(super) fn text(&self, medium: Medium) -> String {
        match medium {
            Medium::Markdown => self.markdown(),
            Medium::Terminal => self.terminal(),
        }
    }

    /// Returns the columns that are shown: all but those that no row has anything for. If that is
    /// all, it is what the table shows.
    fn shown(&self) -> Vec<usize> {
        let is_known = |column: &usize| {
            let mut entries = self.rows.iter().map(|row| row[*column].text.as_str());
            entries.any(|text| !matches!(text, "" | "–"))
        };
        let all = || 0..self.columns.len();
        let shown: Vec<usize> = all().filter(|it| *it < self.keys || is_known(it)).collect();
        match shown.len() > self.keys {
            true => shown,
            false => all().collect(),
        }
    }

    fn markdown(&self) -> String {
        let shown = self.shown();
        let columns = shown.iter().map(|column| escape(&self.columns[*column]));
        let mut out = format!("| {} |\n|", columns.collect::<Vec<_>>().join(" | "));
        for column in &shown {
            out += if self.metrics.contains(column) {
                "---:|"
            } else {
                "---|"
            };
        }
        out += "\n";
        for row in &self.rows {
            let texts = shown.iter().map(|column| escape(&row[*column].text));
            out += &format!("| {} |\n", texts.collect::<Vec<_>>().join(" | "));
        }
        out
    }

    /// Returns the table with aligned columns, in parts below one another if it is too wide.
    fn terminal(&self) -> String {
        let plain = |text: &str| text.replace(char::is_control, " ");
        let shown = self.shown();
        let heading = shown.iter().map(|it| plain(&self.columns[*it])).collect();
        let texts = |row: &Vec<Entry>| shown.iter().map(|it| plain(&row[*it].text)).collect();
        let rows: Vec<Vec<String>> = iter::once(heading)
            .chain(self.rows.iter().map(texts))
            .collect();
        let is_metric: Vec<bool> = shown.iter().map(|it| self.metrics.contains(it)).collect();
        fit::draw(&rows, self.keys, &is_metric)
    }

    pub(super) fn html(&self, caption: &str) -> Markup {
        let shown = self.shown();
        html! {
            div.scroll tabindex="0" role="group" aria-label=(caption) {
                table {
                    thead {
                        tr {
                            @for index in &shown {
                                th scope="col" .metric[self.metrics.contains(index)] {
                                    (self.columns[*index])
                                }
                            }
                        }
                    }
                    tbody {
                        @for row in &self.rows {
                            tr { (self.row(row, &shown)) }
                        }
                    }
                }
            }
        }
    }

    fn row(&self, row: &[Entry], shown: &[usize]) -> Markup {
        html! {
            @for index in shown {
                @let Entry { text, tone } = &row[*index];
                @if *index == 0 {
                    th scope="row" { (text) }
                } @else {
                    td .metric[self.metrics.contains(index)] .faint[*tone == Tone::Faint]
                        .bad[*tone == Tone::Bad] { (text) }
                }
            }
        }
    }
}

impl Entry {
    pub(super) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }

    /// Makes an entry of a ratio. Its mark and tone say whether it is a difference.
    pub(super) fn told(text: &str, told: Told) -> Self {
        let tone = match told {
            Told::Different => Tone::Plain,
            Told::Equal | Told::NotToldApart | Told::TooFewBlocks => Tone::Faint,
        };
        Self::new(text::mark(told).to_owned() + text, tone)
    }

    /// Appends something bad, if there is any, and marks the entry as bad.
    pub(super) fn but(self, bad: Option<String>) -> Self {
        match bad {
            Some(bad) => Self::new(format!("{}, {bad}", self.text), Tone::Bad),
            None => self,
        }
    }
}

impl From<String> for Entry {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<&str> for Entry {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_stays_in_its_cell() {
        let mut sheet = Table::new(1, ["path", "RPS"]);
        sheet.push(vec![
            "a|b\n<script>".into(),
            Entry::told("1.0 %", Told::TooFewBlocks),
        ]);
        assert_eq!(
            sheet.markdown(),
            "| path | RPS |\n|---|---:|\n| a\\|b \\<script> | ? 1.0 % |\n"
        );
        let html = sheet.html("a \"caption\"").into_string();
        assert!(
            html.contains("<th scope=\"row\">a|b\n&lt;script&gt;</th>"),
            "{html}"
        );
        assert!(
            html.contains("<td class=\"metric faint\">? 1.0 %</td>"),
            "{html}"
        );
        assert!(
            html.contains("aria-label=\"a &quot;caption&quot;\""),
            "{html}"
        );
    }

    #[test]
    fn a_column_of_nothing_is_left_out() {
        let mut sheet = Table::new(1, ["path", "RPS", "copies", "note"]).with_notes(1);
        for (path, rps) in [("direct", "–"), ("hop", "7")] {
            sheet.push(vec![path.into(), rps.into(), "–".into(), "".into()]);
        }
        let wanted = "| path | RPS |\n|---|---:|\n| direct | – |\n| hop | 7 |\n";
        assert_eq!(sheet.markdown(), wanted);
        assert!(!sheet.terminal().contains("copies"));
        assert!(!sheet.html("x").into_string().contains("copies"));
        // If nothing is known, that is what there is to show.
        let mut sheet = Table::new(1, ["path", "RPS"]);
        sheet.push(vec!["hop".into(), "–".into()]);
        assert!(sheet.markdown().contains("| hop | – |"));
    }

    #[test]
    fn columns_are_under_one_another() {
        let mut sheet = Table::new(1, ["path", "RPS"]);
        sheet.push(vec!["a|b".into(), "1,000".into()]);
        sheet.push(vec!["longer".into(), "–".into()]);
        assert_eq!(
            sheet.terminal(),
            "| path   |   RPS |\n|--------|-------|\n| a|b    | 1,000 |\n| longer |     – |\n"
        );
    }
}
