//! Checks that every answer is what its digests say.

use super::{open::Store, reader};

/// The result of a check.
#[derive(Debug, Default)]
pub struct Verified {
    /// Answers that are whole.
    pub good: u64,
    /// The others, and what is wrong with them.
    pub bad: Vec<String>,
}

/// Reads every body and compares its digest.
pub fn verify(store: &Store) -> Verified {
    let mut verified = Verified::default();
    let mut bad = Vec::new();
    let refused = store.each(None, |row| {
        let request = reader::body(&row.request_body, &row.request_digest, &store.files);
        let answer = reader::body(&row.body, &row.digest, &store.files);
        let faults = [("request", request.err()), ("answer", answer.err())];
        let faults = faults.map(|(whose, error)| Some((whose, error?)));
        if faults.iter().all(Option::is_none) {
            verified.good += 1;
        }
        for (whose, error) in faults.into_iter().flatten() {
            let (id, method, target) = (row.id, &row.method, &row.target);
            bad.push(format!("row {id}, {method} {target}, the {whose}: {error}"));
        }
    });
    verified.bad = refused;
    verified.bad.extend(bad);
    verified
}
