//! Finds the route of a request and has it forwarded.

use std::{
    any::Any,
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use http_proxy::{
    Answer, Call, PlainAnswer, PlainRequest, PlainRoute, PlainRoutes, Proxy, ProxyBody, Upstreams,
    access_log::Entry, answer,
};
use hyper::{Response, StatusCode, Uri, header::HOST};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use tower_service::Service;

use crate::{
    Shared,
    allow::Missed,
    config::place,
    table::{Entered, Full, HttpRoute, Key, Port, Table},
};

/// The HTTP side of a worker.
#[derive(Debug)]
pub(crate) struct Http {
    proxy: Proxy,
    shared: Arc<Shared>,
    /// The table that was current at the last request. Counting who uses the shared one would cost
    /// more than a look whether it has changed: all threads would write to one place.
    table: RefCell<Rc<Known>>,
    /// The places that requests have chosen, so that their connections can be used again.
    chosen: RefCell<HashMap<Chosen, Arc<Upstreams>>>,
}

/// A route and the address that a request chose.
type Chosen = (Arc<str>, SocketAddr);

/// A table, counted by one thread alone.
#[derive(Debug)]
struct Known(Arc<Table>);

/// Answers the requests that come in at one port.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    pub(crate) http: Rc<Http>,
    pub(crate) key: Arc<Key>,
}

/// A place that a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    host: String,
    port: u16,
    /// The request's target without the choice.
    rest: Uri,
}

/// Most places that requests have chosen and that are remembered.
const CHOSEN_MAX: usize = 1024;

const HOST_PARAMETER: &str = "porty_host";
const PORT_PARAMETER: &str = "porty_port";

impl Http {
    pub(crate) fn new(proxy: Proxy, shared: Arc<Shared>) -> Self {
        Self {
            proxy,
            table: RefCell::new(Rc::new(Known(shared.table.load_full()))),
            shared,
            chosen: RefCell::default(),
        }
    }

    /// Answers a request. What needs no waiting is done at once, and the usual request has one
    /// future, since the memory of a future is written for each request.
    fn answer(self: &Rc<Self>, call: Call, key: &Key) -> Answer {
        let counters = &self.shared.http_counters;
        let table = self.table();
        let Some(route) = route(&table.0, &call, key) else {
            counters.requests_unrouted.add(1);
            return at_once(StatusCode::NOT_FOUND, "no route has this host");
        };
        let log = route.log.as_ref().zip(route.http.log);
        let entry = log.map(|(log, detail)| log.begin(&route.name, detail, &call));
        let entered = match route.enter() {
            Ok(entered) => entered,
            Err(Full) => {
                counters.requests_unrouted.add(1);
                let full = at_once(StatusCode::SERVICE_UNAVAILABLE, "the route is at its limit");
                return noted(full, entry, None);
            }
        };
        let answer = match (&route.http.allow, &route.upstreams) {
            (Some(_), _) => Box::pin(Rc::clone(self).choose(call, Arc::clone(route))),
            (None, Some(upstreams)) => self.proxy.forward(call, upstreams, route.http.forwarding),
            (None, None) => self.unchosen(),
        };
        noted(answer, entry, entered)
    }

    /// Returns the table of now.
    fn table(&self) -> Rc<Known> {
        let now = self.shared.table.load();
        let mut known = self.table.borrow_mut();
        if !Arc::ptr_eq(&now, &known.0) {
            *known = Rc::new(Known(Arc::clone(&now)));
            // Those of targets that are gone would be closed after a minute. Many new
            // configurations in a minute would leave many of them.
            self.proxy.pool().close_orphans();
        }
        Rc::clone(&known)
    }

    /// Forwards a request to the place that it asks for, if that is allowed, or else to those of
    /// the route.
    async fn choose(
        self: Rc<Self>,
        mut call: Call,
        route: Arc<HttpRoute>,
    ) -> Result<Response<ProxyBody>, Infallible> {
        let client = call.client.address;
        let chosen = match self.chosen(&mut call, &route).await {
            Ok(chosen) => chosen,
            Err((status, why)) => {
                let counters = &self.shared.http_counters;
                if status.is_server_error() {
                    counters.upstream_unreachable.add(1);
                } else {
                    counters.requests_unrouted.add(1);
                }
                tracing::warn!("route '{}': refused for {client}: {why}", route.name);
                return Ok(answer(status, &why));
            }
        };
        match chosen.as_ref().or(route.upstreams.as_ref()) {
            Some(upstreams) => {
                let forwarding = route.http.forwarding;
                self.proxy.forward(call, upstreams, forwarding).await
            }
            None => self.unchosen().await,
        }
    }

    fn unchosen(&self) -> Answer {
        self.shared.http_counters.requests_unrouted.add(1);
        let text = "expected 'porty_host' and 'porty_port' in the query";
        at_once(StatusCode::BAD_REQUEST, text)
    }

    /// Returns the place that a request asks for, if it asks for one and that is allowed.
    async fn chosen(
        &self,
        call: &mut Call,
        route: &Arc<HttpRoute>,
    ) -> Result<Option<Arc<Upstreams>>, (StatusCode, String)> {
        let Some(allow) = &route.http.allow else {
            return Ok(None);
        };
        let choice = choice(call.request.uri());
        let Some(choice) = choice.map_err(|why| (StatusCode::BAD_REQUEST, why))? else {
            return Ok(None);
        };
        let resolving = allow.resolve(&choice.host, choice.port);
        let connect_max = route.route.upstream_limits(&route.http).connect;
        let address = match timeout(connect_max, resolving).await {
            Ok(Ok(address)) => address,
            Ok(Err(Missed::Refused(why))) => return Err((StatusCode::FORBIDDEN, why)),
            Ok(Err(Missed::Unknown(why))) => return Err((StatusCode::BAD_GATEWAY, why)),
            Err(_) => {
                let why = format!("'{}' could not be resolved in time", choice.host);
                return Err((StatusCode::GATEWAY_TIMEOUT, why));
            }
        };
        *call.request.uri_mut() = choice.rest;
        let mut chosen = self.chosen.borrow_mut();
        if chosen.len() >= CHOSEN_MAX {
            chosen.clear();
        }
        let upstreams = chosen.entry((Arc::clone(&route.name), address));
        let upstreams =
            upstreams.or_insert_with(|| Arc::new(route.route.chosen(&route.http, address)));
        Ok(Some(Arc::clone(upstreams)))
    }
}

/// Makes an answer of our own.
fn at_once(status: StatusCode, text: &str) -> Answer {
    Box::pin(ready(Ok(answer(status, text))))
}

/// Has an answer noted in the log, and its place within the route's limit kept meanwhile.
fn noted(answer: Answer, entry: Option<Entry>, entered: Option<Entered>) -> Answer {
    if entry.is_none() && entered.is_none() {
        return answer;
    }
    Box::pin(async move {
        let _entered = entered;
        let response = answer.await?;
        Ok(match entry {
            Some(entry) => entry.answered(response),
            None => response,
        })
    })
}

/// Finds the route of a request. The request keeps it, whatever takes its place.
fn route<'a>(table: &'a Table, call: &Call, key: &Key) -> Option<&'a Arc<HttpRoute>> {
    let request = &call.request;
    let host = match request.uri().authority() {
        Some(authority) => authority.host(),
        None => {
            let host = request.headers().get(HOST);
            host.and_then(|host| host.to_str().ok()).unwrap_or_default()
        }
    };
    find(table, key, host)
}

/// Finds the route for a host.
fn find<'a>(table: &'a Table, key: &Key, host: &str) -> Option<&'a Arc<HttpRoute>> {
    match table.get(key)? {
        Port::Http(routes) => routes.find(host),
        Port::Tcp(_) => None,
    }
}

/// Finds the place that a target asks for, and removes that from it.
fn choice(target: &Uri) -> Result<Option<Choice>, String> {
    let Some(query) = target.query() else {
        return Ok(None);
    };
    let (mut host, mut port, mut rest) = (None, None, Vec::new());
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A spelling that only the target understands would be a way around the list.
        let is = |parameter: &str| percent_decode_str(name).eq(parameter.bytes());
        let (parameter, slot) = if is(HOST_PARAMETER) {
            (HOST_PARAMETER, &mut host)
        } else if is(PORT_PARAMETER) {
            (PORT_PARAMETER, &mut port)
        } else {
            rest.push(pair);
            continue;
        };
        if slot.replace(percent_decode_str(value)).is_some() {
            return Err(format!("'{parameter}' is repeated"));
        }
    }
    let (host, port) = match (host, port) {
        (None, None) => return Ok(None),
        (Some(host), Some(port)) => (host, port),
        _ => {
            return Err(format!(
                "expected both '{HOST_PARAMETER}' and '{PORT_PARAMETER}'"
            ));
        }
    };
    let host = host.decode_utf8().ok();
    let host = host.filter(|host| place::is_host(host.trim_matches(['[', ']'])));
    let host = host.ok_or_else(|| format!("'{HOST_PARAMETER}': expected a name or an address"))?;
    let port = port.decode_utf8().ok().and_then(|port| port.parse().ok());
    let port = port.filter(|&port: &u16| port > 0);
    let port = port.ok_or_else(|| format!("'{PORT_PARAMETER}': expected 1 to 65535"))?;
    let mut path = target.path().to_owned();
    if !rest.is_empty() {
        path.push('?');
        path.push_str(&rest.join("&"));
    }
    let rest = path
        .parse()
        .map_err(|error| format!("invalid target: {error}"))?;
    Ok(Some(Choice {
        host: host.into_owned(),
        port,
        rest,
    }))
}

impl PlainRoutes for Router {
    fn route(&self, request: &PlainRequest<'_>, _: &mut Vec<u8>) -> Option<PlainAnswer> {
        let table = self.http.table();
        let route = find(&table.0, &self.key, request.host)?;
        let http = &route.http;
        if http.allow.is_some() {
            return None;
        }
        let upstreams = Arc::clone(route.upstreams.as_ref()?);
        let entered = route.enter().ok()?;
        let log = route.log.as_ref().zip(http.log);
        let entry = log.map(|(log, detail)| log.begin_plain(&route.name, detail, request));
        Some(PlainAnswer::Forward(PlainRoute {
            upstreams,
            forwarding: http.forwarding,
            entry: entry.map(Box::new),
            kept: entered.map(|entered| Box::new(entered) as Box<dyn Any>),
            tap: None,
        }))
    }
}

impl Service<Call> for Router {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Answer {
        self.http.answer(call, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice_of(target: &str) -> Result<Option<(String, u16, String)>, String> {
        let target: Uri = target.parse().expect(target);
        let choice = choice(&target)?;
        Ok(choice.map(|choice| (choice.host, choice.port, choice.rest.to_string())))
    }

    #[test]
    fn the_choice_is_taken_out_of_the_target() {
        for (target, rest) in [
            ("/a?porty_host=h&porty_port=80", "/a"),
            (
                "/a?x=1&porty_host=h&y&porty_port=80&z=%20",
                "/a?x=1&y&z=%20",
            ),
            ("http://any/a//b?porty_port=80&porty_host=h", "/a//b"),
            ("/?porty_port=80&porty_host=%68", "/"),
            ("/?porty%5fhost=h&porty_port=%38%30&b", "/?b"),
            ("/?a&%70orty%5Fhost=h&porty_por%74=80", "/?a"),
        ] {
            let expected = ("h".to_owned(), 80, rest.to_owned());
            assert_eq!(choice_of(target), Ok(Some(expected)), "{target}");
        }
        for target in [
            "/a",
            "/a?",
            "/a?x=porty_host",
            "/a?xporty_host=1",
            "/a?porty%255fhost=1",
        ] {
            assert_eq!(choice_of(target), Ok(None), "{target}");
        }
    }

    #[test]
    fn half_a_choice_is_refused() {
        for (target, said) in [
            ("/?porty_host=h", "expected both"),
            ("/?porty_port=1", "expected both"),
            ("/?porty_host=h&porty_port=0", "expected 1 to 65535"),
            ("/?porty_host=h&porty_port=x", "expected 1 to 65535"),
            ("/?porty_host=&porty_port=1", "expected a name"),
            ("/?porty_host=%ff&porty_port=1", "expected a name"),
            ("/?porty_host=a%0ab&porty_port=1", "expected a name"),
            ("/?porty_host=a%00&porty_port=1", "expected a name"),
            (
                "/?porty_host=a&porty_host=b&porty_port=1",
                "'porty_host' is repeated",
            ),
            (
                "/?porty_host=a&porty%5fhost=b&porty_port=1",
                "'porty_host' is repeated",
            ),
            ("/?porty_host=a&porty_port=%ff", "expected 1 to 65535"),
        ] {
            let error = choice_of(target).expect_err(target);
            assert!(error.contains(said), "{target}: {error}");
        }
    }
}
