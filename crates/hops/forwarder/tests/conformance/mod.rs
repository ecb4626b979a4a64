//! The conformance suite's machinery. Start with `check.rs`.

pub(crate) mod bytes;
pub(crate) mod case;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod exchange;
pub(crate) mod http2;
pub(crate) mod message;
pub(crate) mod origin;
pub(crate) mod page;
pub(crate) mod subject;
pub(crate) mod wire;
