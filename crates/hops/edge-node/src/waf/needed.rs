//! Finds bytes of which a text must contain one if a regex matches it.
//!
//! A second filter, after the literals: words such as `or` and `cat` are in much prose, but not
//! beside the quotes, semicolons and slashes that make them an attack.

use regex_syntax::hir::{Class, Hir, HirKind};

/// A set of ASCII, a bit each.
pub(super) type Bytes = u128;

/// Most sets that are kept for one regex.
const SETS_MAX: usize = 4;

/// Sets that are heavier are in nearly every text.
const WEIGHT_MAX: u32 = 60;

/// Returns the ASCII in a text.
pub(super) fn in_text(text: &[u8]) -> Bytes {
    let mut low: u64 = 0;
    let mut high: u64 = 0;
    for byte in text {
        let bit = 1_u64 << (byte & 63);
        match byte >> 6 {
            0 => low |= bit,
            1 => high |= bit,
            _ => {}
        }
    }
    u128::from(high) << 64 | u128::from(low)
}

/// Returns sets of bytes. A text that a regex matches contains one of each.
pub(super) fn by_regex(regex: &Hir) -> Vec<Bytes> {
    let mut sets = needed(regex);
    sets.retain(|set| weight(*set) <= WEIGHT_MAX);
    sets.sort_by_key(|set| weight(*set));
    sets.dedup();
    sets.truncate(SETS_MAX);
    sets
}

fn needed(part: &Hir) -> Vec<Bytes> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => Vec::new(),
        HirKind::Literal(literal) => {
            let bytes = literal.0.iter().filter(|byte| byte.is_ascii());
            let lightest = bytes.map(|byte| 1 << byte).min_by_key(|set| weight(*set));
            lightest.into_iter().collect()
        }
        HirKind::Class(class) => members(class).into_iter().collect(),
        HirKind::Capture(capture) => needed(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => needed(&repetition.sub),
        HirKind::Repetition(_) => Vec::new(),
        HirKind::Concat(parts) => parts.iter().flat_map(needed).collect(),
        HirKind::Alternation(parts) => {
            let lightest = |part| needed(part).into_iter().min_by_key(|set| weight(*set));
            let sets = parts.iter().map(lightest);
            let union = sets.reduce(|all, set| Some(all? | set?)).flatten();
            union.into_iter().collect()
        }
    }
}

fn members(class: &Class) -> Option<Bytes> {
    let Class::Bytes(class) = class else {
        return None;
    };
    let mut set = 0;
    for range in class.ranges() {
        for byte in range.start()..=range.end() {
            set |= byte.is_ascii().then(|| 1 << byte)?;
        }
    }
    Some(set)
}

/// Returns how often texts contain a byte of a set, roughly.
fn weight(set: Bytes) -> u32 {
    (0..128_u8)
        .filter(|byte| set >> byte & 1 == 1)
        .map(|byte| match byte {
            b'j' | b'k' | b'q' | b'v' | b'w' | b'x' | b'z' => 8,
            b'a'..=b'z' => 10,
            b' ' => 20,
            b'0'..=b'9' => 4,
            b'.' | b'-' | b'/' | b'_' | b',' => 12,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::literals;

    fn sets(regex: &str) -> Vec<Bytes> {
        by_regex(&literals::parse(regex).expect("a regex"))
    }

    #[test]
    fn rare_bytes_that_must_occur_are_found() {
        assert_eq!(sets(r"^[^']*' ?or\b")[0], in_text(b"'"));
        assert_eq!(sets(r"(?:;|\|\||`) ?(?:cat|ls)")[0], in_text(b";|`"));
        assert_eq!(sets(r"[a-z]*"), []);
        assert_eq!(sets(r"a|[^b]"), []);
    }

    #[test]
    fn texts_that_match_contain_them() {
        for (regex, text) in [
            (r"\.\.[/\\]", "a/../b"),
            (r"(?:^|[;|]) ?id(?:$|;)", "id"),
            (r"\bunion[ (]+select\b", "union select"),
            (r"[\x80-\xff]=|x", "x"),
        ] {
            let bytes = in_text(text.as_bytes());
            assert!(sets(regex).iter().all(|set| bytes & set != 0), "{regex}");
        }
    }
}
