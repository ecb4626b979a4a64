//! Costs that a server can be told to add, so that a test can prove that a gate finds them.
//!
//! A layer around every endpoint but `/health` adds them; `/health` only tells whether the server
//! is ready. Without a cost to add there is no layer. With one, the layer itself takes some 0.2 µs
//! of CPU time per request, so a cost of less than a few percent can't be told apart.

mod cpu;
mod delay;
mod leak;

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::future::{BoxFuture, Either};
use tower::{Service, layer::layer_fn};

use crate::Endpoint;

/// The costs that are added to each request. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Injection {
    /// Added CPU time, in percent of what the process uses without it.
    pub cpu_percent: f64,
    /// How much longer each answer is held, without using CPU time for it.
    pub delay: Duration,
    /// Bytes of memory that each request takes and never gives back.
    pub leak_bytes: usize,
    /// Most bytes that all requests together take and never give back.
    pub leak_total_bytes: usize,
}

impl Injection {
    /// Returns whether no cost is added.
    pub fn is_none(&self) -> bool {
        let Self {
            cpu_percent,
            delay,
            leak_bytes,
            leak_total_bytes: _,
        } = *self;
        cpu_percent == 0.0 && delay.is_zero() && leak_bytes == 0
    }

    /// Returns `router` with these costs added. Without any, `router` is not changed.
    pub fn add_to(self, router: Router) -> Router {
        if self.is_none() {
            return router;
        }
        let costs = Arc::new(Costs {
            cpu: (self.cpu_percent > 0.0).then(|| cpu::Burner::new(self.cpu_percent)),
            delay: (!self.delay.is_zero()).then(|| delay::Delay::new(self.delay)),
            leak: (self.leak_bytes > 0)
                .then(|| leak::Leak::new(self.leak_bytes, self.leak_total_bytes)),
        });
        router.route_layer(layer_fn(move |inner| Costly {
            inner,
            costs: costs.clone(),
        }))
    }
}

/// Formats the costs for the line that a server prints, so that nobody takes its figures for those
/// of a real one.
impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.cpu_percent > 0.0 {
            parts.push(format!("{} % more CPU time", self.cpu_percent));
        }
        if !self.delay.is_zero() {
            parts.push(format!("{} µs of delay", self.delay.as_micros()));
        }
        if self.leak_bytes > 0 {
            parts.push(format!(
                "a leak of {} bytes per request, up to {} MiB",
                self.leak_bytes,
                self.leak_total_bytes >> 20
            ));
        }
        match parts.as_slice() {
            [] => f.write_str("nothing"),
            parts => f.write_str(&parts.join(" and ")),
        }
    }
}

struct Costs {
    cpu: Option<cpu::Burner>,
    delay: Option<delay::Delay>,
    leak: Option<leak::Leak>,
}

/// A route that costs more than it has to.
#[derive(Clone)]
struct Costly<S> {
    inner: S,
    costs: Arc<Costs>,
}

impl<S> Service<Request> for Costly<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    /// Only a delay takes an allocation. Otherwise that would be a cost that nobody asked for.
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let is_health = request.uri().path() == Endpoint::Health.route();
        let answer = self.inner.call(request);
        if is_health {
            return Either::Left(answer);
        }
        if let Some(cpu) = &self.costs.cpu {
            cpu.count_request();
        }
        if let Some(leak) = &self.costs.leak {
            leak.grow();
        }
        if self.costs.delay.is_none() {
            return Either::Left(answer);
        }
        let costs = self.costs.clone();
        Either::Right(Box::pin(async move {
            let answer = answer.await?;
            let delay = costs.delay.as_ref().expect("looked at above");
            // If the delay fails, the answer is wrong. Without its delay, the request would be
            // counted as a fast one.
            Ok(delay.hold().await.map_or_else(
                |error| {
                    let cause = format!("could not inject a delay: {error}");
                    (StatusCode::INTERNAL_SERVER_ERROR, cause).into_response()
                },
                |()| answer,
            ))
        }))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::{describe, payload, router};

    const EVERYTHING: Injection = Injection {
        cpu_percent: 10.0,
        delay: Duration::from_micros(100),
        leak_bytes: 5_000,
        leak_total_bytes: 1 << 20,
    };

    #[tokio::test]
    async fn answers_are_what_they_are_without() {
        for cost in [EVERYTHING, Injection::default()] {
            let router = cost.add_to(router());
            // Often enough for the CPU time to be read, and for the leak to reach its limit.
            for target in ["/small", "/bytes/65536", "/health"].repeat(100) {
                let expected = describe(target).expect("a valid target");
                let request = Request::get(target).body(Body::empty()).expect("valid");
                let answer = router.clone().oneshot(request).await.expect("infallible");
                assert_eq!(answer.status().as_u16(), expected.status, "{target}");
                let body = answer.into_body().collect().await.expect("whole");
                let digest = payload::sha256_hex([body.to_bytes()]);
                assert_eq!(Some(digest), expected.sha256, "{target}");
            }
        }
    }

    #[test]
    fn a_server_says_what_it_adds() {
        assert_eq!(Injection::default().to_string(), "nothing");
        assert_eq!(
            EVERYTHING.to_string(),
            "10 % more CPU time and 100 µs of delay and a leak of 5000 bytes per request, up to \
             1 MiB"
        );
    }
}
