//! Which variant of an answer a request gets (RFC 9111, section 4.1).

use crate::{
    fields::{Fields, Pairs},
    head::Head,
};

/// The fields of a request that an answer depends on, with their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary(Vec<(String, Option<Vec<u8>>)>);

impl Vary {
    /// Notes the fields on which an answer depends.
    pub fn of<F: Fields + ?Sized>(head: &Head, request: &F) -> Self {
        let mut names: Vec<String> = head
            .list("vary")
            .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
            .collect();
        names.sort_unstable();
        names.dedup();
        let pairs = names.into_iter().map(|name| {
            let value = value(&name, request);
            (name, value)
        });
        Self(pairs.collect())
    }

    /// Returns whether a request gets the same answer.
    pub fn matches<F: Fields + ?Sized>(&self, request: &F) -> bool {
        self.0
            .iter()
            .all(|(name, expected)| value(name, request) == *expected)
    }

    /// Returns the fields and their values, as they are stored.
    pub(crate) fn pairs(&self) -> Pairs {
        let present = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.as_bytes().to_vec(), value.clone()?)));
        present.collect()
    }
}

/// Returns the value of a field, without differences that mean nothing: spaces around commas, and
/// the lines over which a list is spread.
fn value<F: Fields + ?Sized>(name: &str, request: &F) -> Option<Vec<u8>> {
    let joined = request.joined(name)?;
    let elements = joined.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let mut elements: Vec<Vec<u8>> = elements
        .filter(|element| !element.is_empty())
        .map(|element| match IS_LIST_OF_WORDS.contains(&name) {
            // Their case doesn't count, nor does a space around a weight.
            true => {
                let compact = element.iter().filter(|byte| !byte.is_ascii_whitespace());
                compact.map(u8::to_ascii_lowercase).collect()
            }
            false => element.to_vec(),
        })
        .collect();
    if IS_LIST_OF_WORDS.contains(&name) {
        elements.sort_unstable();
    }
    Some(elements.join(b",".as_slice()))
}

/// Fields whose elements have weights, so that neither their order nor their case counts.
const IS_LIST_OF_WORDS: [&str; 3] = ["accept-encoding", "accept-language", "accept-charset"];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Pairs {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn a_request_gets_the_variant_of_its_fields() {
        let head = "HTTP/1.1 200 OK\r\nVary: Foo,\r\nvary: Accept-Language\r\n";
        let head = Head::parse(head.into()).expect("a head");
        let vary = Vary::of(
            &head,
            &fields(&[("foo", "a,  b"), ("accept-language", "en, DE")]),
        );
        for (request, expected) in [
            (
                vec![("FOO", "a"), ("Foo", "b"), ("accept-language", "de,en")],
                true,
            ),
            (vec![("foo", "b, a"), ("accept-language", "en, de")], false),
            (vec![("foo", "a, B"), ("accept-language", "en, de")], false),
            (vec![("foo", "a, b")], false),
        ] {
            assert_eq!(vary.matches(&fields(&request)), expected, "{request:?}");
        }
        let stored = Vary::of(&head, &vary.pairs());
        assert_eq!(stored, vary);
    }
}
