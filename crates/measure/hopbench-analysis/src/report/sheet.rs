//! A table of a report, before it becomes text or HTML.

use std::{iter, ops::Range};

use maud::{Markup, html};

use super::{
    terminal::pad,
    text::{self, escape},
};
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
            columns,
            rows: Vec::new(),
        }
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

    pub(super) fn text(&self, medium: Medium) -> String {
        match medium {
            Medium::Markdown => self.markdown(),
            Medium::Terminal => self.terminal(),
        }
    }

    fn markdown(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|column| escape(column)).collect();
        let mut out = format!("| {} |\n|", columns.join(" | "));
        for column in 0..self.columns.len() {
            out += if self.metrics.contains(&column) {
                "---:|"
            } else {
                "---|"
            };
        }
        out += "\n";
        for row in &self.rows {
            let texts: Vec<String> = row.iter().map(|entry| escape(&entry.text)).collect();
            out += &format!("| {} |\n", texts.join(" | "));
        }
        out
    }

    /// Returns the table with aligned columns.
    fn terminal(&self) -> String {
        let plain = |text: &String| text.replace(char::is_control, " ");
        let heading = self.columns.iter().map(plain).collect();
        let texts = |row: &Vec<Entry>| row.iter().map(|entry| plain(&entry.text)).collect();
        let rows: Vec<Vec<String>> = iter::once(heading)
            .chain(self.rows.iter().map(texts))
            .collect();
        let rows = pad(&rows, |column| self.metrics.contains(&column));
        let mut lines: Vec<String> = rows
            .iter()
            .map(|row| format!("| {} |\n", row.join(" | ")))
            .collect();
        let rules = rows[0].iter().map(|it| "-".repeat(it.chars().count() + 2));
        let rules: Vec<String> = rules.collect();
        lines.insert(1, format!("|{}|\n", rules.join("|")));
        lines.concat()
    }

    pub(super) fn html(&self, caption: &str) -> Markup {
        html! {
            div.scroll tabindex="0" role="group" aria-label=(caption) {
                table {
                    thead {
                        tr {
                            @for (index, column) in self.columns.iter().enumerate() {
                                th scope="col" .metric[self.metrics.contains(&index)] { (column) }
                            }
                        }
                    }
                    tbody {
                        @for row in &self.rows {
                            tr { (self.row(row)) }
                        }
                    }
                }
            }
        }
    }

    fn row(&self, row: &[Entry]) -> Markup {
        html! {
            @for (index, Entry { text, tone }) in row.iter().enumerate() {
                @if index == 0 {
                    th scope="row" { (text) }
                } @else {
                    td .metric[self.metrics.contains(&index)] .faint[*tone == Tone::Faint]
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
