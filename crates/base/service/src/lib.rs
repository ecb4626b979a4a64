//! The parts that all server processes on a path have in common.
//!
//! | module | what it is for |
//! |---|---|
//! | [`args`] | the command-line arguments that all servers share |
//! | [`process`] | the log, the process's limits, signals and exit codes |
//! | [`server`] | the life of a server: start, serve, drain, print its counters |
//! | [`listener`] | TCP and Unix listeners that clean up after themselves |
//! | [`limit`] | the limit of connections at a time |
//! | [`connections`] | accepts connections, hands each to a task, and drains them |
//! | [`http`] | serves an axum router on a listener or on one byte stream |
//! | [`mod@counters`] | counters and gauges, and the registry that lists them |
//! | [`admin`] | `/_admin/status` and `/metrics` |
//!
//! Hops and the origin's own server use it. It knows none of them.
#![forbid(unsafe_code)]

pub mod address;
pub mod admin;
pub mod args;
pub mod connections;
pub mod counters;
pub mod http;
pub mod limit;
pub mod listener;
pub mod process;
pub mod server;

pub use address::Address;
pub use admin::AdminAddress;
pub use args::{ProcessArgs, ServerArgs};
pub use counters::{Counter, Registry};
pub use limit::ConnectionLimit;
pub use listener::{Listener, SocketFile};
pub use server::Server;
