//! Observations of a run: from the kernel and from the servers.

pub(crate) mod hardware;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod neighbours;
mod quota;
pub(crate) mod status;
mod storage;
pub(crate) mod tls;
pub(crate) mod usage;
