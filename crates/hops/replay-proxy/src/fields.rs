//! Header fields, wherever they come from: a head that is kept, or a request that was parsed.

use hyper::HeaderMap;

/// The fields of a message, in their order.
pub trait Fields {
    /// Returns names and values.
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// Returns the values of a field, whose name is lower case.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.iter();
        fields
            .filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Returns the first value of a field.
    fn get<'a>(&'a self, name: &'a str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Returns whether there is such a field.
    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns the values of a field as one, joined by commas (RFC 9110, section 5.2); `None` if
    /// there is none.
    fn joined(&self, name: &str) -> Option<Vec<u8>> {
        let mut all = self.all(name);
        let mut joined = all.next()?.to_vec();
        for value in all {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
        }
        Some(joined)
    }

    /// Copies all fields.
    fn to_pairs(&self) -> Pairs {
        let fields = self.iter();
        fields
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect()
    }

    /// Returns the elements of a field that is a list of tokens.
    fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }
}

impl Fields for HeaderMap {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.iter();
        fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.get_all(name).iter().map(|value| value.as_bytes())
    }
}

impl Fields for [(&[u8], &[u8])] {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.as_ref().iter().copied()
    }
}

impl Fields for Pairs {
    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.as_slice().iter();
        fields.map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

/// Fields that are kept: names and values, in their order.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A request as far as it is looked up.
#[derive(Debug)]
pub struct Asked<'a, F: ?Sized> {
    /// The method.
    pub method: &'a str,
    /// The target: a path, perhaps with a query.
    pub target: &'a str,
    /// The fields.
    pub fields: &'a F,
}

impl<F: Fields + ?Sized> Asked<'_, F> {
    /// Returns the path and the query.
    pub fn path_and_query(&self) -> (&str, Option<&str>) {
        match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        }
    }

    /// Returns whether a body is announced.
    pub fn has_body(&self) -> bool {
        self.fields.has("transfer-encoding")
            || self
                .fields
                .get("content-length")
                .is_some_and(|length| length != b"0")
    }
}
