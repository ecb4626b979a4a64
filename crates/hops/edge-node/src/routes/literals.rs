//! Texts of which a path must have one, or a regex is not found in it.

use regex_syntax::hir::{Hir, HirKind, Look};

/// Most texts of one regex: `/(a|b)/` has two.
const TEXTS_MAX: usize = 32;

/// Shortest text that is worth a search. `/` alone is in every path.
const BYTES_MIN: usize = 2;

/// Returns texts of which each path that matches has one; `None` if there are no useful ones.
pub(super) fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let texts = texts(hir)?;
    (shortest(&texts) >= BYTES_MIN).then_some(texts)
}

/// Returns the text with which each path that matches begins; it may be empty.
pub(super) fn prefix(hir: &Hir) -> &[u8] {
    let HirKind::Concat(parts) = hir.kind() else {
        return &[];
    };
    match parts.as_slice() {
        [start, text, ..] if *start.kind() == HirKind::Look(Look::Start) => match text.kind() {
            HirKind::Literal(literal) => &literal.0,
            _ => &[],
        },
        _ => &[],
    }
}

/// The depth is bounded by the parser's limit on nesting.
fn texts(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => texts(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => texts(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(texts).max_by_key(|texts| {
            // The longer, the rarer; of equal ones, the fewer.
            (shortest(texts), std::cmp::Reverse(texts.len()))
        }),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(texts(branch)?);
                if all.len() > TEXTS_MAX {
                    return None;
                }
            }
            Some(all)
        }
        _ => None,
    }
}

fn shortest(texts: &[Vec<u8>]) -> usize {
    texts.iter().map(Vec::len).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_that_must_be_there_is_found() {
        let found = |regex: &str| {
            let hir = regex_syntax::parse(regex).expect("valid");
            required(&hir).map(|texts| {
                let texts = texts
                    .into_iter()
                    .map(|text| String::from_utf8(text).expect("text"));
                texts.collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(found(r"^/users/\d+/files$").as_deref(), Some("/users/"));
        assert_eq!(found(r"^/(api|admin)/v\d").as_deref(), Some("api admin"));
        assert_eq!(found(r"^/(?:abcd)?x+$"), None);
        assert_eq!(found(r"(ab)+").as_deref(), Some("ab"));
        assert_eq!(found(r"ab|c*"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn only_a_bound_text_is_a_prefix() {
        let found = |regex: &str| {
            let hir = regex_syntax::parse(regex).expect("valid");
            String::from_utf8(prefix(&hir).to_vec()).expect("text")
        };
        assert_eq!(found(r"^/users/\d+"), "/users/");
        for regex in [
            r"/users/\d+",
            r"(?m)^/users",
            r"^(/a)?/b",
            r"^/a*",
            r"^/a|/b",
            "",
        ] {
            let expected = if regex == r"^/a*" { "/" } else { "" };
            assert_eq!(found(regex), expected, "{regex}");
        }
    }
}
