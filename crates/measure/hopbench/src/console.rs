//! Messages to the user, on stderr; stdout is for results.

use std::{borrow::Cow, io::Write};

/// Prints a line on stderr. A run goes on even if nobody reads it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(line));
}

/// Returns a text of at most so many characters; `…` stands for the rest of a longer one.
pub(crate) fn shortened(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// Returns a text whose control characters are shown rather than obeyed: what a measured program
/// printed must not move the cursor of a terminal, or turn the text of a report around. Ends of
/// lines and tabs stay.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let shown = |char| match char {
        // Unicode has a picture of each of the first, which is as wide as any letter.
        '\0'..='\x1f' if is_obeyed(char) => picture(char),
        '\x7f' => '\u{2421}',
        char if is_obeyed(char) => char::REPLACEMENT_CHARACTER,
        char => char,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

fn is_obeyed(char: char) -> bool {
    let turns = matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || char.is_control() && !matches!(char, '\n' | '\t')
}

fn picture(char: char) -> char {
    char::from_u32(0x2400 + u32::from(char)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Formats a duration in seconds, minutes or hours, whichever is readable.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(visible("a\tb\n"), "a\tb\n");
        assert_eq!(
            visible("\x1b[2J\r\0\x7f"),
            "\u{241b}[2J\u{240d}\u{2400}\u{2421}"
        );
        assert_eq!(visible("\u{9b}2J \u{202e}x"), "\u{fffd}2J \u{fffd}x");
    }
}
