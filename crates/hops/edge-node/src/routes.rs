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
//! Look up the path after [`crate::path::normalise`], or `/public/../admin` passes for public.

use std::{fmt, sync::Arc};

use arc_swap::{ArcSwap, Guard};

mod host;
mod literals;
mod pattern;
mod regexes;
mod slots;
mod table;
mod trie;

#[cfg(test)]
mod tests;

pub use pattern::{Path, Problem, Route, RouteError};
pub use table::{Match, Table};

/// The table in use, which another may replace while requests are served.
#[derive(Debug)]
pub struct Routes<T> {
    current: ArcSwap<Generation<T>>,
}

/// A table and how many stood before it.
pub struct Generation<T> {
    number: u64,
    table: Arc<Table<T>>,
}

impl<T> Routes<T> {
    /// Begins with this table as generation 1.
    pub fn new(table: Table<T>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Generation {
                number: 1,
                table: Arc::new(table),
            }),
        }
    }

    /// Returns the table in use. A request loads it once and is served by it to its end.
    pub fn load(&self) -> Guard<Arc<Generation<T>>> {
        self.current.load()
    }

    /// Puts another table in the place of the one in use, and returns its generation.
    pub fn replace(&self, table: Table<T>) -> u64 {
        let table = Arc::new(table);
        let before = self.current.rcu(|current| Generation {
            number: current.number + 1,
            table: Arc::clone(&table),
        });
        before.number + 1
    }
}

impl<T> Generation<T> {
    /// Returns how many tables stood before this one, and 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the table.
    pub fn table(&self) -> &Table<T> {
        &self.table
    }
}

impl<T> fmt::Debug for Generation<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Generation")
            .field("number", &self.number)
            .field("routes", &self.table.len())
            .finish()
    }
}
