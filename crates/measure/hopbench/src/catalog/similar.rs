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

/// Returns a hint for a misspelt word; empty if no known word is similar.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    most_similar(word, known).map_or_else(String::new, |candidate| {
        format!(" (did you mean '{candidate}'?)")
    })
}
