//! A configuration as requests use it. It takes the place of another as a whole.

use std::sync::Arc;

use http_proxy::Upstreams;
use replay_proxy::cache::Cache;

use crate::{
    cache_key::CacheKeys,
    config::{CacheConfig, Config, ConfigError},
    crdt::Store,
    rate_limit::Limiter,
    routes::{Route, Table},
    waf::Waf,
};

/// Everything that a request needs to know. A request keeps the one that it began with.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many plans there have been, with this one.
    pub(crate) generation: u64,
    pub(crate) shows_generation: bool,
    /// `None` if that stage is left out: everything has one destination.
    pub(crate) table: Option<Table<Arc<Destination>>>,
    /// The destination without a table.
    only: Option<Arc<Destination>>,
    pub(crate) waf: Option<Waf>,
    pub(crate) cache: Option<Caching>,
    upstreams: Known,
}

/// Where a request goes, and what happens on the way.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) limiters: Vec<Arc<Limiter>>,
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

/// A configuration that can't be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Waf(#[from] crate::waf::WafError),
    #[error(transparent)]
    Limit(#[from] crate::rate_limit::LimitError),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] std::io::Error),
}

impl Plan {
    /// Makes the plan of a configuration. What has not changed is that of `old`: connections, the
    /// health of targets, and what is cached.
    ///
    /// # Errors
    /// If routes, rules or limits can't be used.
    pub(crate) fn new(
        config: Config,
        old: Option<&Self>,
        store: &Arc<Store>,
    ) -> Result<Self, PlanError> {
        let upstreams = upstreams(&config, old);
        let limiters = limiters(&config, store)?;
        let destination = |leads: &crate::config::Leads| {
            Arc::new(Destination {
                upstreams: Arc::clone(&upstreams[leads.upstream].1),
                limiters: leads
                    .limits
                    .iter()
                    .map(|&at| Arc::clone(&limiters[at]))
                    .collect(),
                is_inspected: leads.is_inspected,
                is_cached: leads.is_cached,
            })
        };
        let routes = config.routes.iter().map(|route| Route {
            host: route.host.clone(),
            methods: route.methods.clone(),
            path: route.path.clone(),
            priority: route.priority,
            target: destination(&route.target),
        });
        let table = match config.routes.is_empty() {
            true => None,
            false => {
                Some(Table::compile(routes.collect()).map_err(|error| config.at_route(&error))?)
            }
        };
        let only = table.is_none().then(|| {
            Arc::new(Destination {
                upstreams: Arc::clone(&upstreams[0].1),
                limiters,
                is_inspected: true,
                is_cached: true,
            })
        });
        let cache = match config.cache {
            None => None,
            Some(cache) => Some(Caching::new(cache, old)?),
        };
        let waf = config
            .waf
            .map(|(settings, rules)| Waf::new(settings, rules));
        Ok(Self {
            generation: old.map_or(1, |old| old.generation + 1),
            shows_generation: config.shows_generation,
            table,
            only,
            waf: waf.transpose()?,
            cache,
            upstreams,
        })
    }

    /// Finds the destination of a request.
    pub(crate) fn destination(
        &self,
        host: &str,
        method: &str,
        path: &str,
    ) -> Option<&Arc<Destination>> {
        match &self.table {
            None => self.only.as_ref(),
            Some(table) => table.find(host, method, path).map(|found| found.target),
        }
    }
}

/// Upstreams, each with what tells it apart.
type Known = Vec<(String, Arc<Upstreams>)>;

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

fn limiters(
    config: &Config,
    store: &Arc<Store>,
) -> Result<Vec<Arc<Limiter>>, crate::rate_limit::LimitError> {
    let secret = config
        .cluster
        .as_ref()
        .map(|cluster| cluster.secret.as_bytes());
    let limiters = config.limits.iter().map(|limit| {
        let secret = secret.unwrap_or_default();
        Limiter::new(limit.clone(), Arc::clone(store), secret).map(Arc::new)
    });
    limiters.collect()
}

/// Tells upstreams apart, also across configurations.
fn key_of(upstream: &crate::config::Upstream) -> String {
    format!("{upstream:?}")
}

impl Caching {
    fn new(config: CacheConfig, old: Option<&Plan>) -> Result<Self, std::io::Error> {
        let old = old.and_then(|old| old.cache.as_ref());
        let answer_bytes_max = config.answer_bytes_max;
        Ok(match old.filter(|old| old.config == config) {
            Some(old) => Self {
                keys: Arc::clone(&old.keys),
                cache: Arc::clone(&old.cache),
                answer_bytes_max,
                config,
            },
            None => Self {
                keys: Arc::new(CacheKeys::new(config.key.clone())?),
                cache: Arc::new(Cache::new(config.bytes_max)),
                answer_bytes_max,
                config,
            },
        })
    }
}
