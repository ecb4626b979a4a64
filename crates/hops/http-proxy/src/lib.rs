//! HTTP reverse proxying, as services on hyper, for hops that speak HTTP.
//!
//! | module | what it is for |
//! |---|---|
//! | [`accept`](mod@accept) | takes clients in, as many as a limit allows |
//! | [`workers`] | threads that each have a runtime and connections of their own |
//! | [`serve`] | one client's connection, HTTP/1.1 or HTTP/2 |
//! | [`plain`] | passes requests on that need nothing else, without hyper |
//! | [`framing`] | finds requests that other servers might read differently |
//! | [`guard`] | refuses those, and limits how long a client may take |
//! | [`proxy`] | asks an upstream, again if that is safe, and passes its answer on |
//! | [`upstream`] | where requests may go, and which of those places work |
//! | [`pool`] | connections to upstreams that wait for the next request |
//! | [`fields`] | the header fields that a hop removes, adds or replaces |
//! | [`access_log`] | a line per request, which never slows down the requests unless told to |
//!
//! A hop starts [`Workers`], and hands each accepted socket to one. The worker serves it with
//! [`Serving::serve`] and a service of the hop's own that turns a [`Call`] into an answer, usually
//! by [`Proxy::forward`]. hyper reads and writes HTTP, except for [plain requests](plain), which
//! most are. A request runs in one task from the client's socket to the upstream's and back: the
//! connection to the upstream is driven by whoever waits for its answer.
#![forbid(unsafe_code)]

pub mod accept;
pub mod access_log;
pub mod answer;
pub mod body;
pub mod counters;
mod deadline;
mod exchange;
pub mod fields;
pub mod framing;
pub mod guard;
#[cfg(any(test, fuzzing))]
pub mod hostile;
pub mod plain;
pub mod pool;
mod prepare;
pub mod proxy;
pub mod serve;
mod tap;
mod upgrade;
pub mod upstream;
pub mod workers;
mod write;

pub use accept::{Accepted, accept};
pub use access_log::AccessLog;
pub use answer::answer;
pub use body::{BodyError, HopBody, ProxyBody, UploadTap};
pub use counters::ProxyCounters;
pub use fields::{Client, Forwarding};
pub use guard::ClientLimits;
pub use plain::{AnswerTap, PlainAnswer, PlainRequest, PlainRoute, PlainRoutes};
pub use pool::{Pool, PoolLimits};
pub use proxy::{Answer, Proxy, Routed};
pub use serve::{Call, Serving};
pub use tap::RawHead;
pub use upstream::{Place, Target, UpstreamLimits, Upstreams};
pub use workers::{Serve, Workers};
