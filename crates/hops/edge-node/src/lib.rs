//! An edge node: what stands between the clients of a site and its origin.
#![forbid(unsafe_code)]

pub mod cache_key;
pub mod crdt;
pub mod path;
pub mod rate_limit;
pub mod routes;

#[cfg(any(test, fuzzing))]
pub mod hostile;
