//! Asks an upstream on a hop's own account, or with a hop that looks on.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Request, http::request::Parts};

use super::{Answer, Proxy};
use crate::{
    body::{RequestBody, UploadTap},
    fields::{Client, Forwarding},
    prepare::prepare,
    serve::Call,
    upstream::Upstreams,
};

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
        self.exchange(upstreams, asked, None).start(request)
    }

    /// Forwards a request as [`Proxy::forward`] does, and shows `tap` its body.
    pub fn forward_tapped(
        &self,
        call: Call,
        upstreams: &Arc<Upstreams>,
        forwarding: Forwarding,
        tap: UploadTap,
    ) -> Answer {
        self.send(call, upstreams, forwarding, Some(tap))
    }
}
