//! Hints for misspelt words.

/// Returns the most similar known word, if one is similar.
pub(crate) fn most_similar<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Below 0.7, Jaro-Winkler matches words that nobody would call similar.
    const SIMILAR: f64 = 0.7;
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Returns whether one word is the other with a letter more or less, or with two letters swapped.
/// Names such as `a` and `b`, or `admin` and `admin2`, are meant to differ.
pub(super) fn is_slip(word: &str, other: &str) -> bool {
    let stem = |word: &str| {
        word.trim_end_matches(|letter: char| letter.is_ascii_digit())
            .len()
    };
    let is_swapped = || {
        let sorted = |word: &str| {
            let mut letters: Vec<char> = word.chars().collect();
            letters.sort_unstable();
            letters
        };
        sorted(word) == sorted(other)
    };
    let is_numbered = word[..stem(word)] == other[..stem(other)];
    // Of words of three letters, only a letter that was typed twice is a slip.
    let is_doubled = || {
        let once = |word: &str| {
            let mut letters: Vec<char> = word.chars().collect();
            letters.dedup();
            letters
        };
        word.len().min(other.len()) == 3 && once(word) == once(other)
    };
    (word.len().min(other.len()) > 3 || is_doubled())
        && !is_numbered
        && strsim::osa_distance(word, other) == 1
        && (word.len() != other.len() || is_swapped())
}

/// Returns a hint for a misspelt word; empty if no known word is similar.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    most_similar(word, known).map_or_else(String::new, |candidate| {
        format!(" (did you mean '{candidate}'?)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_told_from_another_name() {
        for (word, other) in [
            ("orgin", "origin"),
            ("orgiin", "origin"),
            ("oirgin", "origin"),
            ("hopp", "hop"),
        ] {
            assert!(is_slip(word, other) && is_slip(other, word), "{word}");
        }
        for (word, other) in [
            ("a", "b"),
            ("in", "inn"),
            ("hop", "shop"),
            ("hop", "hops"),
            ("admin", "admin2"),
            ("admin1", "admin2"),
            ("metrics-a", "metrics-b"),
            ("front", "origin"),
        ] {
            assert!(!is_slip(word, other), "{word}");
        }
    }
}
