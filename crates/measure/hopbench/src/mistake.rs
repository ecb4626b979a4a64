//! Errors caused by what the user wrote.

/// A mistake on the command line or in a file that it names. The program ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Mistake(pub(crate) String);
