//! Asks an upstream on a hop's own account, or with a hop that looks on.

use bytes::Bytes;
use hyper::{Request, http::request::Parts};
use tokio::time::Instant;

use super::{Answer, Proxy};
use crate::{
    body::{RequestBody, UploadTap},
    exchange::Exchange,
    fields::{Client, Forwarding},
    prepare::{note_continue, prepare},
    serve::Call,
    upstream::Upstreams,
};
use std::sync::Arc;

impl Proxy {
    /// Sends a request of a hop's own, or one whose body the hop has read.
    pub fn ask(
        &self,
        mut head: Parts,
        body: Bytes,
        client: &Client,
        upstreams: &Arc<Upstreams>,
        forwarding: Forwarding,
    ) -> Answer {
        let mut asked = prepare(&mut head, client, forwarding, &self.0.via);
        // The body is here, so nobody waits for leave to send it.
        asked.continued = None;
        let request = Request::from_parts(head, RequestBody::whole(body));
        let exchange = Exchange {
            proxy: self.clone(),
            upstreams: Arc::clone(upstreams),
            asked,
            progress: None,
            begin: Instant::now(),
        };
        exchange.start(request)
    }

    /// Forwards a request as [`Proxy::forward`] does, and shows `tap` its body.
    pub fn forward_tapped(
        &self,
        call: Call,
        upstreams: &Arc<Upstreams>,
        forwarding: Forwarding,
        tap: UploadTap,
    ) -> Answer {
        let (mut head, body) = call.request.into_parts();
        let asked = prepare(&mut head, &call.client, forwarding, &self.0.via);
        let (mut body, progress) = RequestBody::new(body, asked.continued.clone());
        body.set_tap(tap);
        let mut request = Request::from_parts(head, body);
        if let Some(continued) = &asked.continued {
            note_continue(&mut request, continued);
        }
        let exchange = Exchange {
            proxy: self.clone(),
            upstreams: Arc::clone(upstreams),
            asked,
            progress,
            begin: Instant::now(),
        };
        exchange.start(request)
    }
}
