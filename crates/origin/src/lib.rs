//! The workload: one HTTP application, served by every path.
//!
//! [`Endpoint::ALL`] is the only list of endpoints. The routes of [`router`] and the expected
//! answers of [`describe`] both come from it, so that what is served and what is verified can't
//! drift apart. [`server`] is how the application is put on a listener, with the same code in the
//! baseline and behind a tunnel. [`process`] is what every server process on a path does besides:
//! log, stop when told, and say how it ended. [`Injection`] makes it dearer, for tests of gates.
#![forbid(unsafe_code)]

mod endpoint;
mod inject;
mod memory;
pub mod payload;
pub mod process;
mod refusal;
mod routes;
pub mod server;

pub use endpoint::{DescribeError, Endpoint, Expectation, describe, describe_all};
pub use inject::Injection;
pub use memory::{Fill, Memory};
pub use routes::{router, router_in};
