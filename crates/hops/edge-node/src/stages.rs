//! The stages that a request passes: the WAF, its route, its token, its limits, the cache. One
//! after another, on the bytes of the request, for requests that hyper reads and for those that it
//! doesn't.

use std::{net::IpAddr, sync::Arc};

use replay_proxy::{
    cache::{Variant, control::Directives},
    fields::Fields,
};

use crate::{
    cache_key::{Asked, CacheKey, Scheme},
    path,
    plan::{Destination, Plan},
    rate_limit::Decision,
    state::{Counters, Shared},
    waf::{self, Scratch, Verdict},
};

/// A request as the stages see it.
#[derive(Debug)]
pub(crate) struct View<'a, F: ?Sized> {
    pub(crate) method: &'a str,
    /// The path and the query, as the client sent them.
    pub(crate) target: &'a str,
    pub(crate) host: &'a str,
    pub(crate) client: IpAddr,
    pub(crate) fields: &'a F,
    pub(crate) body: &'a [u8],
}

/// The fate of a request.
#[derive(Debug)]
pub(crate) enum Fate<'p> {
    /// It is answered with this.
    Refused(Refusal),
    /// A cached answer may be used, if all of it is asked for.
    Hit(Arc<Variant>, &'p Destination),
    /// It goes on to the upstream. The key is set if its answer may be cached, or if it may change
    /// what is.
    Passed(&'p Destination, Option<CacheKey>),
}

/// An answer of the node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) text: &'static str,
    /// A field that tells the client what to do.
    pub(crate) field: Option<(&'static str, String)>,
}

impl<F: Fields + ?Sized> View<'_, F> {
    /// Passes the request, which has this destination, through the stages. `scratch` is the WAF's.
    pub(crate) fn pass<'p>(
        &self,
        plan: &'p Plan,
        destination: Option<&'p Destination>,
        scratch: &mut Scratch,
        shared: &Shared,
        now_ms: i64,
    ) -> Fate<'p> {
        let counters = &shared.counters;
        // A route may leave the WAF out; what has no route doesn't.
        if let Some(waf) = &plan.waf
            && destination.is_none_or(|destination| destination.is_inspected)
        {
            let verdict = self.inspect(waf, scratch);
            if verdict.is_attack {
                let request = (self.client, self.method, self.target);
                shared.attacks.note(&verdict, request, counters, now_ms);
            }
            if verdict.is_blocked {
                return Fate::refused(403, "the request was refused");
            }
        }
        let Some(destination) = destination else {
            counters.requests_unrouted.add(1);
            return Fate::refused(404, "no route has this host, method and path");
        };
        if let Some(tokens) = &plan.tokens
            && (destination.needs_token || !self.is_plain_path())
            && !tokens.admit(self.fields)
        {
            counters.requests_unauthorised.add(1);
            return Fate::Refused(Refusal {
                status: 401,
                text: "a token is needed",
                // RFC 6750, section 3.
                field: Some(("www-authenticate", "Bearer".to_owned())),
            });
        }
        if let Some(retry_after_ms) = self.limited(destination, now_ms) {
            counters.requests_limited.add(1);
            return Fate::Refused(Refusal {
                status: 429,
                text: "too many requests",
                field: Some(("retry-after", retry_after_ms.div_ceil(1_000).to_string())),
            });
        }
        self.look_up(plan, destination, counters, now_ms)
    }

    /// Returns whether the path is written in the form in which routes see it. In another form, the
    /// upstream might take it for the path of another route.
    fn is_plain_path(&self) -> bool {
        let (path, _) = self.target.split_once('?').unwrap_or((self.target, ""));
        path::routed(path, &mut String::new()) == path
    }

    fn inspect(&self, waf: &waf::Waf, scratch: &mut Scratch) -> Verdict {
        let request = waf::Request {
            method: self.method.as_bytes(),
            target: self.target.as_bytes(),
            headers: self.fields.iter(),
            body: self.body,
        };
        waf.inspect(request, scratch)
    }

    /// Asks the limits. Returns after how many milliseconds there may be room, if there is none.
    fn limited(&self, destination: &Destination, now_ms: i64) -> Option<u64> {
        if destination.limiters.is_empty() {
            return None;
        }
        let now_ms = u64::try_from(now_ms).unwrap_or_default();
        let octets;
        let segments;
        let client: &[u8] = match self.client.to_canonical() {
            IpAddr::V4(ip) => {
                octets = ip.octets();
                &octets
            }
            // One client usually has all addresses with the same first half (RFC 6177).
            IpAddr::V6(ip) => {
                segments = ip.octets();
                &segments[..8]
            }
        };
        let limiters = &destination.limiters;
        for (index, limiter) in limiters.iter().enumerate() {
            if let Decision::Refused { retry_after_ms } = limiter.decide(client, now_ms) {
                for admitted in &limiters[..index] {
                    admitted.take_back(client, now_ms);
                }
                return Some(retry_after_ms);
            }
        }
        None
    }

    fn look_up<'p>(
        &self,
        plan: &'p Plan,
        destination: &'p Destination,
        counters: &Counters,
        now_ms: i64,
    ) -> Fate<'p> {
        let caching = plan.cache.as_ref().filter(|_| destination.is_cached);
        let Some(caching) = caching else {
            return Fate::Passed(destination, None);
        };
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target, None),
        };
        let asked = Asked {
            method: "GET",
            scheme: Scheme::Http,
            host: self.host,
            path,
            query,
        };
        let key = caching.keys.key(&asked, |name, each| {
            self.fields.all(name).for_each(each);
        });
        if !matches!(self.method, "GET" | "HEAD") {
            return Fate::Passed(destination, Some(key));
        }
        let directives = Directives::read(self.fields);
        if directives.no_store {
            return Fate::Passed(destination, None);
        }
        let bits = key.bits().to_be_bytes();
        let selected = caching
            .cache
            .select(&bits, self.fields, &directives, now_ms);
        match selected.filter(|selected| selected.is_usable) {
            Some(selected) => {
                counters.cache_hits.add(1);
                Fate::Hit(selected.variant, destination)
            }
            None => {
                counters.cache_misses.add(1);
                Fate::Passed(destination, Some(key))
            }
        }
    }
}

impl Fate<'_> {
    fn refused(status: u16, text: &'static str) -> Self {
        Self::Refused(Refusal {
            status,
            text,
            field: None,
        })
    }
}
