//! A configuration as requests use it. It takes the place of another as a whole.

use std::{io, sync::Arc};

use http_proxy::Upstreams;
use replay_proxy::cache::Cache;

use crate::{
    cache_key::CacheKeys,
    config::{CacheConfig, Config, Leads, Upstream},
    crdt::Store,
    path,
    rate_limit::{LimitError, Limiter},
    routes::Table,
    tokens::Tokens,
    waf::Waf,
};

/// Everything that a request needs to know. A request keeps the one that it began with.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many plans there have been, with this one.
    pub(crate) generation: u64,
    pub(crate) shows_generation: bool,
    /// Leads to the indices of `destinations`. `None` if that stage is left out: everything has the
    /// first one.
    pub(crate) table: Option<Table<usize>>,
    destinations: Vec<Destination>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) waf: Option<Waf>,
    pub(crate) cache: Option<Caching>,
    upstreams: Known,
}

/// Where a request goes, and what happens on the way.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) limiters: Vec<Arc<Limiter>>,
    pub(crate) needs_token: bool,
    pub(crate) is_inspected: bool,
    pub(crate) is_cached: bool,
}

/// The cache and its keys.
#[derive(Debug)]
pub(crate) struct Caching {
    config: CacheConfig,
    pub(crate) keys: Arc<CacheKeys>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) answer_bytes_max: usize,
}

/// Upstreams, each with what tells it apart.
type Known = Vec<(String, Arc<Upstreams>)>;

/// A plan that can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] io::Error),
}

impl Plan {
    /// Makes the plan of a configuration. What has not changed is that of `old`: connections, the
    /// health of targets, and what is cached.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(crate) fn new(
        config: Config,
        old: Option<&Self>,
        store: &Arc<Store>,
    ) -> Result<Self, PlanError> {
        let upstreams = upstreams(&config, old);
        let limiters = limiters(&config, store)?;
        let destination = |leads: &Leads| Destination {
            upstreams: Arc::clone(&upstreams[leads.upstream].1),
            limiters: leads
                .limits
                .iter()
                .map(|&at| Arc::clone(&limiters[at]))
                .collect(),
            needs_token: leads.needs_token,
            is_inspected: leads.is_inspected,
            is_cached: leads.is_cached,
        };
        let only = Leads {
            upstream: 0,
            limits: (0..limiters.len()).collect(),
            needs_token: true,
            is_inspected: true,
            is_cached: true,
        };
        let destinations = match &config.table {
            None => vec![destination(&only)],
            Some(_) => config.routes.iter().map(destination).collect(),
        };
        let cache = config.cache.map(|cache| Caching::new(cache, old));
        Ok(Self {
            generation: old.map_or(1, |old| old.generation + 1),
            shows_generation: config.shows_generation,
            table: config.table,
            destinations,
            tokens: config.tokens,
            waf: config.waf,
            cache: cache.transpose()?,
            upstreams,
        })
    }

    /// Finds the destination of a request by its path in any form. `scratch` is memory for the one
    /// form that routes are written in.
    pub(crate) fn destination(
        &self,
        host: &str,
        method: &str,
        path: &str,
        scratch: &mut String,
    ) -> Option<&Destination> {
        let index = match &self.table {
            None => 0,
            Some(table) => {
                let path = path::routed(path, scratch);
                *table.find(host, method, path)?.target
            }
        };
        self.destinations.get(index)
    }
}

/// Makes the upstreams, but for those that `old` has already.
fn upstreams(config: &Config, old: Option<&Plan>) -> Known {
    let made = config.upstreams.iter().map(|upstream| {
        let key = key_of(upstream);
        let same = old.and_then(|old| old.upstreams.iter().find(|(known, _)| *known == key));
        let upstreams = match same {
            Some((_, same)) => Arc::clone(same),
            None => {
                let places = upstream.places.iter().cloned();
                Arc::new(Upstreams::new(places, upstream.limits))
            }
        };
        (key, upstreams)
    });
    made.collect()
}

fn limiters(config: &Config, store: &Arc<Store>) -> Result<Vec<Arc<Limiter>>, LimitError> {
    // A node alone needs no secret that others know.
    let own = store.actor().to_bytes();
    let cluster = config.cluster.as_ref();
    let secret = cluster.map_or(&own[..], |cluster| cluster.secret.as_bytes());
    let limiters = config
        .limits
        .iter()
        .map(|limit| Limiter::new(limit.clone(), Arc::clone(store), secret).map(Arc::new));
    limiters.collect()
}

/// Tells upstreams apart, also across configurations.
fn key_of(upstream: &Upstream) -> String {
    format!("{upstream:?}")
}

impl Caching {
    fn new(config: CacheConfig, old: Option<&Plan>) -> io::Result<Self> {
        let old = old.and_then(|old| old.cache.as_ref());
        let (keys, cache) = match old.filter(|old| old.config == config) {
            Some(old) => (Arc::clone(&old.keys), Arc::clone(&old.cache)),
            None => (
                Arc::new(CacheKeys::new(config.key.clone())?),
                Arc::new(Cache::new(config.bytes_max)),
            ),
        };
        Ok(Self {
            keys,
            cache,
            answer_bytes_max: config.answer_bytes_max,
            config,
        })
    }
}
