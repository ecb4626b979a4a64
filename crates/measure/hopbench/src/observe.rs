//! Observations of a run: from the kernel and from the servers.

pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod usage;
