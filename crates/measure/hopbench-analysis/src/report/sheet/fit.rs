//! Draws a table for a terminal, not wider than one is: a table with too many columns is continued
//! below, with its names repeated, and a text that is too long is continued in the next line.

use super::super::terminal::pad;

/// Widest table, in columns of the terminal.
pub(super) const WIDTH_MAX: usize = 100;

/// Fewest columns of the terminal that a name, which is repeated in each part, is cut down to.
const NAME_MIN: usize = 8;

/// Fewest columns of the terminal that are left for a text.
const TEXT_MIN: usize = 28;

/// Columns of the terminal between two entries.
const BETWEEN: usize = 3;

/// Columns of the terminal around a row.
const AROUND: usize = 4;

/// Draws rows of which the first is the heading. The first `names` columns name a row; `is_metric`
/// says of each column whether it is aligned to the right.
pub(super) fn draw(rows: &[Vec<String>], names: usize, is_metric: &[bool]) -> String {
    let count = is_metric.len();
    let names = names.min(count);
    let natural: Vec<usize> = (0..count).map(|column| width(rows, column)).collect();
    let widths = limited(&natural, names, is_metric);
    let room = WIDTH_MAX - AROUND;
    let of_names: usize = widths[..names].iter().map(|width| width + BETWEEN).sum();
    let mut parts: Vec<Vec<usize>> = vec![Vec::new()];
    let mut used = of_names;
    for (column, width) in widths.iter().enumerate().skip(names) {
        let last = parts.last_mut().expect("there is one");
        if last.is_empty() || used + width <= room {
            last.push(column);
        } else {
            parts.push(vec![column]);
            used = of_names;
        }
        used += width + BETWEEN;
    }
    let parts = parts.iter().map(|part| {
        let columns: Vec<usize> = (0..names).chain(part.iter().copied()).collect();
        drawn(rows, &columns, &widths, is_metric)
    });
    parts.collect::<Vec<_>>().join("\n")
}

/// Returns the width of each column: as much as it needs, unless names and one column don't fit.
fn limited(natural: &[usize], names: usize, is_metric: &[bool]) -> Vec<usize> {
    let room = WIDTH_MAX - AROUND;
    // Names may have what the widest of the other columns leaves. Texts can be broken.
    let others = natural.iter().zip(is_metric).skip(names);
    let needed = others.map(|(width, is_metric)| match is_metric {
        true => (*width).min(room / 2),
        false => (*width).min(TEXT_MIN),
    });
    let names_room = room - needed.max().unwrap_or(0);
    let of_names: usize = natural[..names].iter().map(|width| width + BETWEEN).sum();
    let share = (names_room / names.max(1)).saturating_sub(BETWEEN);
    let name = |width: usize| match of_names > names_room {
        true => width.min(share.max(NAME_MIN)),
        false => width,
    };
    let mut widths: Vec<usize> = natural[..names].iter().map(|width| name(*width)).collect();
    let used: usize = widths.iter().map(|width| width + BETWEEN).sum();
    let rest = room.saturating_sub(used).max(NAME_MIN);
    widths.extend(natural[names..].iter().map(|width| (*width).min(rest)));
    widths
}

fn width(rows: &[Vec<String>], column: usize) -> usize {
    let widths = rows.iter().map(|row| row[column].chars().count());
    widths.max().unwrap_or(0)
}

fn drawn(rows: &[Vec<String>], columns: &[usize], widths: &[usize], is_metric: &[bool]) -> String {
    let wrapped = rows.iter().map(|row| {
        let entries = columns.iter().map(|it| wrap(&row[*it], widths[*it]));
        let entries: Vec<Vec<String>> = entries.collect();
        let height = entries.iter().map(Vec::len).max().unwrap_or(1);
        let line = |at: usize| {
            let texts = entries
                .iter()
                .map(|it| it.get(at).cloned().unwrap_or_default());
            texts.collect::<Vec<_>>()
        };
        (0..height).map(line).collect::<Vec<_>>()
    });
    let wrapped: Vec<Vec<Vec<String>>> = wrapped.collect();
    let heading = wrapped.first().map_or(0, Vec::len);
    let lines = pad(&wrapped.concat(), |it| is_metric[columns[it]]);
    let mut drawn: Vec<String> = lines
        .iter()
        .map(|row| format!("| {} |\n", row.join(" | ")))
        .collect();
    let rules = lines.first().into_iter().flatten();
    let rules: Vec<String> = rules.map(|it| "-".repeat(it.chars().count() + 2)).collect();
    drawn.insert(heading, format!("|{}|\n", rules.join("|")));
    drawn.concat()
}

/// Breaks a text into lines of at most `width` characters, between words where it can.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    if text.chars().count() <= width {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let letters: Vec<char> = word.chars().collect();
        for (index, piece) in letters.chunks(width).enumerate() {
            let last = lines.last_mut().expect("there is one");
            let used = last.chars().count();
            match index == 0 && used + usize::from(used > 0) + piece.len() <= width {
                true if used == 0 => last.extend(piece),
                true => {
                    last.push(' ');
                    last.extend(piece);
                }
                false => lines.push(piece.iter().collect()),
            }
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(texts: &[&[&str]]) -> Vec<Vec<String>> {
        let row = |row: &&[&str]| row.iter().map(|text| (*text).to_owned()).collect();
        texts.iter().map(row).collect()
    }

    #[test]
    fn a_wide_table_is_continued_below() {
        let long = "1,234 (1,000–2,000)";
        let columns: Vec<&str> = ["path"].into_iter().chain([long; 12]).collect();
        let rows = table(&[&columns, &columns]);
        let is_metric: Vec<bool> = (0..13).map(|column| column > 0).collect();
        let drawn = draw(&rows, 1, &is_metric);
        assert!(
            drawn.lines().all(|line| line.chars().count() <= WIDTH_MAX),
            "{drawn}"
        );
        // Nothing is left out, and each part has the names.
        assert_eq!(drawn.matches(long).count(), 24, "{drawn}");
        assert_eq!(drawn.matches("| path |").count(), 6, "{drawn}");
    }

    #[test]
    fn a_long_text_is_continued_in_the_next_line() {
        let text = "connection reset by peer ".repeat(9);
        let word = "x".repeat(250);
        let rows = table(&[&["path", "note"], &["a", &text], &[&word, "b"]]);
        let drawn = draw(&rows, 1, &[false, false]);
        assert!(
            drawn.lines().all(|line| line.chars().count() <= WIDTH_MAX),
            "{drawn}"
        );
        assert_eq!(drawn.matches("connection").count(), 9, "{drawn}");
        assert_eq!(drawn.matches('x').count(), 250, "{drawn}");
    }

    #[test]
    fn many_names_leave_room_for_a_metric() {
        let name = "n".repeat(60);
        let row: Vec<&str> = [name.as_str(); 4].into_iter().chain(["12,345"]).collect();
        let drawn = draw(
            &table(&[&row, &row]),
            4,
            &[false, false, false, false, true],
        );
        assert!(
            drawn.lines().all(|line| line.chars().count() <= WIDTH_MAX),
            "{drawn}"
        );
        assert_eq!(drawn.matches("12,345").count(), 2, "{drawn}");
    }

    #[test]
    fn a_table_of_names_alone_is_drawn() {
        assert_eq!(
            draw(&table(&[&["a"], &["b"]]), 1, &[false]),
            "| a |\n|---|\n| b |\n"
        );
    }
}
