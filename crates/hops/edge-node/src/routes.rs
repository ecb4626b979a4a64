//! Routes: where a request goes, by its host, method and path.
//!
//! All routes are compiled at once into an immutable [`Table`]. A look-up allocates nothing and
//! takes time linear in the path's length, whatever the path says.
//!
//! # Which route wins
//! If several routes match, the first difference in this list decides:
//! 1. the higher `priority` (0 if none is given);
//! 2. the host: an exact one, then the `*.` with the most labels, then any;
//! 3. the kind: exact, then prefixes and wildcards, then regexes;
//! 4. between prefixes and wildcards, the first segment in which they differ: text wins over `*`,
//!    and `*` over the open end, so the longer prefix wins;
//! 5. a route that names its methods wins over one that takes any;
//! 6. the order in which they are written.
//!
//! # Paths
//! Look up the path after [`crate::path::routed`], or `/public/../admin` passes for public.

mod host;
mod pattern;
mod regexes;
mod slots;
mod table;
mod trie;

#[cfg(test)]
mod tests;

pub use pattern::{Path, Problem, Route, RouteError};
pub use table::{Match, Table};
