//! Counters and gauges of a process.
//!
//! They are always on. Any thread raises one by a single relaxed addition. That is enough, since
//! the numbers are read before and after a load, and no decision depends on them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A number that is raised and lowered from any thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }

    /// Subtracts `n`, which must have been added before. Only gauges go down.
    pub fn subtract(&self, n: usize) {
        self.0.fetch_sub(n as u64, Relaxed);
    }

    /// Returns the value so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// Returns the name of the kind in Prometheus' text format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One number with its name and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterReading {
    /// Unique in the process; lower case, with underscores.
    pub name: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Unit of the value, such as `bytes`.
    pub unit: &'static str,
    /// One line that says what it means.
    pub help: &'static str,
    /// The number when it was read.
    pub value: u64,
}

/// Something that has numbers to show. [`counters!`](crate::counters!) declares one.
pub trait Source: fmt::Debug + Send + Sync {
    /// Returns all numbers, always the same ones in the same order.
    fn readings(&self) -> Vec<CounterReading>;
}

/// Everything that a process counts.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<Vec<Arc<dyn Source>>>>);

impl Registry {
    /// Adds a source.
    ///
    /// # Panics
    /// Panics if one of its names is taken: one of the two numbers would never be seen.
    pub fn register<S: Source + 'static>(&self, source: Arc<S>) {
        let taken = self.readings();
        for CounterReading { name, .. } in source.readings() {
            let is_taken = taken.iter().any(|other| other.name == name);
            assert!(!is_taken, "the counter '{name}' is registered twice");
        }
        self.sources().push(source);
    }

    /// Returns all numbers, in the order in which their sources were registered.
    pub fn readings(&self) -> Vec<CounterReading> {
        let sources = self.sources().clone();
        sources
            .iter()
            .flat_map(|source| source.readings())
            .collect()
    }

    /// Returns one JSON object, from name to value.
    pub fn to_json(&self) -> serde_json::Value {
        let readings = self.readings().into_iter();
        readings
            .map(|reading| (reading.name, reading.value))
            .collect()
    }

    /// Returns one JSON object, from name to unit.
    pub fn units_to_json(&self) -> serde_json::Value {
        let readings = self.readings().into_iter();
        readings
            .map(|reading| (reading.name, reading.unit))
            .collect()
    }

    /// Returns the numbers in Prometheus' text format, version 0.0.4.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for reading in self.readings() {
            let CounterReading {
                name, help, value, ..
            } = reading;
            let kind = reading.kind.name();
            text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        text
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn Source>>> {
        // The list is only pushed to, so it is whole even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Declares a struct of [`Counter`]s that is a [`Source`]. The doc comment of each is its help; its
/// name in the registry is the prefix and the field's name.
///
/// ```
/// service::counters! {
///     /// Counters of a relay.
///     pub struct RelayCounters, "relay_" {
///         /// bytes that were carried
///         bytes_carried: Counter, "bytes";
///         /// connections that are open now
///         connections_open: Gauge, "connections";
///     }
/// }
///
/// let registry = service::Registry::default();
/// let counters = std::sync::Arc::new(RelayCounters::default());
/// registry.register(counters.clone());
/// counters.bytes_carried.add(7);
/// assert_eq!(registry.to_json()["relay_bytes_carried"], 7);
/// ```
#[macro_export]
macro_rules! counters {
    (
        $(#[$about:meta])*
        $visibility:vis struct $struct:ident, $prefix:literal {
            $($(#[doc = $help:literal])+ $name:ident: $kind:ident, $unit:literal;)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        $visibility struct $struct {
            $($(#[doc = $help])+ pub $name: $crate::Counter,)+
        }

        impl $crate::counters::Source for $struct {
            fn readings(&self) -> Vec<$crate::counters::CounterReading> {
                vec![$($crate::counters::CounterReading {
                    name: concat!($prefix, stringify!($name)),
                    kind: $crate::counters::Kind::$kind,
                    unit: $unit,
                    help: concat!($($help),+).trim(),
                    value: self.$name.get(),
                },)+]
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    counters! {
        /// Counters of this test.
        pub(super) struct Counted, "test_" {
            /// bytes that were carried
            bytes_carried: Counter, "bytes";
            /// connections that are open now
            connections_open: Gauge, "connections";
        }
    }

    #[test]
    fn readings_have_names_kinds_units_and_help() {
        let (registry, counted) = (Registry::default(), Arc::new(Counted::default()));
        registry.register(counted.clone());
        counted.bytes_carried.add(7);
        counted.connections_open.add(2);
        counted.connections_open.subtract(1);
        let text = registry.to_prometheus();
        assert!(
            text.contains(
                "# HELP test_bytes_carried bytes that were carried\n\
                 # TYPE test_bytes_carried counter\ntest_bytes_carried 7\n"
            ) && text.contains("# TYPE test_connections_open gauge\ntest_connections_open 1\n"),
            "{text}"
        );
        assert_eq!(
            registry.to_json(),
            serde_json::json!({"test_bytes_carried": 7, "test_connections_open": 1})
        );
        assert_eq!(registry.units_to_json()["test_bytes_carried"], "bytes");
    }

    #[test]
    #[should_panic(expected = "'test_bytes_carried' is registered twice")]
    fn a_name_has_one_number() {
        let registry = Registry::default();
        registry.register(Arc::new(Counted::default()));
        registry.register(Arc::new(Counted::default()));
    }

    #[test]
    fn threads_count_together() {
        let counter = Counter::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.get(), 4_000);
    }
}
