//! The workload: one HTTP application, served by every path.
//!
//! [`Endpoint::ALL`] is the only list of endpoints. The routes of [`router`] and the expected
//! answers of [`describe`] both come from it, so that what is served and what is verified can't
//! drift apart. [`Injection`] adds costs to it, for tests of gates.
#![forbid(unsafe_code)]

mod endpoint;
mod inject;
mod memory;
pub mod payload;
mod refusal;
mod routes;
#[cfg(test)]
mod wire;

pub use endpoint::{DescribeError, Endpoint, Expectation, describe, describe_all};
pub use inject::Injection;
pub use memory::{Fill, Memory};
pub use routes::{router, router_in};
