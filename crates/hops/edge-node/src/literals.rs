//! Finds literals of which a text must contain one if a regex matches it, so that a search for all
//! literals at once shows which regexes are worth a try.

use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind, Look},
};

/// Most literals of one regex.
const LITERALS_MAX: usize = 512;

/// Most texts that are multiplied out for one part of a regex.
const EXACT_MAX: usize = 64;

/// Longest literal that is of use. The first bytes are as good a filter.
const LENGTH_MAX: usize = 24;

/// Facts about the texts that a part of a regex matches.
#[derive(Debug)]
struct Known {
    /// All of the texts, if they are few.
    exact: Option<Vec<Vec<u8>>>,
    /// Literals of which each text contains one.
    required: Option<Vec<Vec<u8>>>,
}

/// Deepest nesting of a regex.
pub(crate) const NESTING_MAX: u32 = 64;

/// Reads a regex as it is matched here: on bytes, of which a dot is any.
///
/// # Errors
/// If it is no regex, or is nested too deeply.
pub(crate) fn parse(regex: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    let mut builder = ParserBuilder::new();
    builder
        .unicode(false)
        .utf8(false)
        .dot_matches_new_line(true)
        .nest_limit(NESTING_MAX);
    builder.build().parse(regex).map_err(Box::new)
}

/// Returns literals of which each text that the regex matches contains one. `None` if there are no
/// such literals.
pub(crate) fn required(regex: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut literals = best(known(regex))?;
    for literal in &mut literals {
        literal.truncate(LENGTH_MAX);
    }
    literals.sort();
    literals.dedup();
    Some(literals)
}

/// Returns the text with which each text that the regex matches begins; it may be empty.
pub(crate) fn prefix(hir: &Hir) -> &[u8] {
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

fn best(known: Known) -> Option<Vec<Vec<u8>>> {
    better(known.exact.filter(|texts| is_useful(texts)), known.required)
}

fn is_useful(literals: &[Vec<u8>]) -> bool {
    literals.len() <= LITERALS_MAX && literals.iter().all(|literal| !literal.is_empty())
}

/// Returns the set that is seen less often: that with the longer literals, then the smaller one.
fn better(left: Option<Vec<Vec<u8>>>, right: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let worth = |literals: &Vec<Vec<u8>>| {
        let shortest = literals.iter().map(Vec::len).min().unwrap_or(0);
        (shortest.min(6), usize::MAX - literals.len())
    };
    match (left, right) {
        (Some(left), Some(right)) if worth(&right) > worth(&left) => Some(right),
        (left, right) => left.or(right),
    }
}

fn known(part: &Hir) -> Known {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => Known {
            exact: Some(vec![Vec::new()]),
            required: None,
        },
        HirKind::Literal(literal) => Known {
            exact: Some(vec![literal.0.to_vec()]),
            required: None,
        },
        HirKind::Class(class) => Known {
            exact: members(class),
            required: None,
        },
        HirKind::Capture(capture) => known(&capture.sub),
        HirKind::Repetition(repetition) => {
            let inner = known(&repetition.sub);
            match (repetition.min, repetition.max) {
                (0, Some(1)) => Known {
                    exact: inner.exact.map(|mut texts| {
                        texts.push(Vec::new());
                        texts
                    }),
                    required: None,
                },
                (0, _) => Known {
                    exact: None,
                    required: None,
                },
                (min, _) => Known {
                    exact: None,
                    required: match inner.exact.as_deref() {
                        Some([text]) if !text.is_empty() => Some(vec![repeated(text, min)]),
                        _ => best(inner),
                    },
                },
            }
        }
        HirKind::Concat(parts) => concatenation(parts),
        HirKind::Alternation(parts) => alternation(parts),
    }
}

/// Returns a text as often as it must occur at least, or as is of use.
fn repeated(text: &[u8], times: u32) -> Vec<u8> {
    let times = usize::try_from(times).unwrap_or(LENGTH_MAX);
    text.repeat(times.min(LENGTH_MAX))
}

fn members(class: &Class) -> Option<Vec<Vec<u8>>> {
    let Class::Bytes(class) = class else {
        return None;
    };
    let ranges = class.ranges();
    let count: usize = ranges
        .iter()
        .map(|range| usize::from(range.end() - range.start()) + 1)
        .sum();
    let bytes = ranges.iter().flat_map(|range| range.start()..=range.end());
    (count <= 12).then(|| bytes.map(|byte| vec![byte]).collect())
}

fn concatenation(parts: &[Hir]) -> Known {
    let mut required = None;
    let mut is_exact = true;
    let mut run = vec![Vec::new()];
    for part in parts {
        let part = known(part);
        match part.exact {
            Some(texts) if run.len() * texts.len() <= EXACT_MAX => run = product(&run, &texts),
            exact => {
                is_exact = false;
                required = better(required, Some(run).filter(|run| is_useful(run)));
                required = better(required, part.required);
                run = exact
                    .filter(|texts| texts.len() <= EXACT_MAX)
                    .unwrap_or_else(|| vec![Vec::new()]);
            }
        }
    }
    match is_exact {
        true => Known {
            exact: Some(run),
            required,
        },
        false => Known {
            exact: None,
            required: better(required, Some(run).filter(|run| is_useful(run))),
        },
    }
}

fn product(heads: &[Vec<u8>], tails: &[Vec<u8>]) -> Vec<Vec<u8>> {
    heads
        .iter()
        .flat_map(|head| tails.iter().map(|tail| [head.as_slice(), tail].concat()))
        .collect()
}

fn alternation(parts: &[Hir]) -> Known {
    let mut exact = Some(Vec::new());
    let mut required = Some(Vec::new());
    for part in parts {
        let part = known(part);
        match (&mut exact, &part.exact) {
            (Some(all), Some(texts)) if all.len() + texts.len() <= LITERALS_MAX => {
                all.extend(texts.iter().cloned());
            }
            _ => exact = None,
        }
        match (&mut required, best(part)) {
            (Some(all), Some(literals)) if all.len() + literals.len() <= LITERALS_MAX => {
                all.extend(literals);
            }
            _ => required = None,
        }
    }
    Known { exact, required }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(regex: &str) -> Option<Vec<String>> {
        required(&parse(regex).expect("a regex")).map(|literals| {
            literals
                .into_iter()
                .map(|literal| String::from_utf8(literal).expect("text"))
                .collect()
        })
    }

    #[test]
    fn the_longest_literal_that_must_occur_is_found() {
        for (regex, expected) in [
            (r"union\s+select", "select"),
            (r"\b(?:cat|less)[^a]", "cat less"),
            (r"<(?:svg|img)[^>]*\bon[a-z]+=", "<img <svg"),
            (r"x?abc", "abc xabc"),
            (r"(?:abc)+", "abc"),
            (r"\.{2,3}/", ".."),
            (r"a[bc]d", "abd acd"),
            (r"(?:foo)?\s*(?:sleep|wait)\(", "sleep( wait("),
        ] {
            let found = literals(regex).map(|found| found.join(" "));
            assert_eq!(found.as_deref(), Some(expected), "{regex}");
        }
    }

    #[test]
    fn some_regexes_need_no_literal() {
        for regex in [r"[a-z]+", r"a*", r"a|[a-z]", r"(?:abc)?", ""] {
            assert_eq!(literals(regex), None, "{regex}");
        }
    }

    #[test]
    fn only_a_bound_text_is_a_prefix() {
        let found = |regex: &str| {
            let hir = parse(regex).expect("a regex");
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
