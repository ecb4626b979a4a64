//! An edge node: what stands between the clients of a site and its origin.
#![forbid(unsafe_code)]

pub mod waf;
