//! The front of a path: its address, and how it is asked.

use clap::ValueEnum;
use hyper::Uri;
use serde::Serialize;

use super::{
    address::{self, Address},
    tls::Tls,
};
use crate::Options;

/// A protocol by which a path is asked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/1.1
    #[default]
    Http1,
    /// HTTP/2: over TLS by ALPN, otherwise by prior knowledge
    H2,
}

/// The front of a path.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    pub(crate) address: Address,
    pub(crate) tls: Option<Tls>,
    pub(crate) protocol: Protocol,
}

impl Front {
    /// Returns the front of a command line, and the target of a request for its URL.
    pub(crate) fn of(options: &Options) -> anyhow::Result<(Self, Uri)> {
        let Options { url, ca, .. } = options;
        let protocol = options.protocol;
        let (address, target) = address::resolve(url)?;
        let tls = match (address.is_tls, ca) {
            (false, None) => None,
            (true, Some(ca)) => Some(Tls::new(&address.name, ca, protocol)?),
            (true, None) => anyhow::bail!(
                "'--url={url}': expected '--ca=FILE', with the certificate of the authority that \
                 signed the server's"
            ),
            (false, Some(_)) => anyhow::bail!("'--ca': expected a '--url' with 'https://'"),
        };
        let front = Self {
            address,
            tls,
            protocol,
        };
        Ok((front, target))
    }
}

impl Protocol {
    pub(crate) fn is_http1(&self) -> bool {
        *self == Self::Http1
    }

    /// Returns its name in TLS (RFC 7301).
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::H2 => b"h2",
        }
    }
}
