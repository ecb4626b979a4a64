//! TLS at the front of a path. The server's certificate is verified, as by any client: only one
//! that the given authority has signed is accepted.

use std::{io, path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::front::Protocol;

/// TLS to one server.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    protocol: Protocol,
}

impl Tls {
    /// Accepts only certificates for `host` that the authority in the file `ca` has signed.
    pub(crate) fn new(host: &str, ca: &Path, protocol: Protocol) -> anyhow::Result<Self> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.with_context(|| {
            format!("'{host}' can't be in a certificate; try an IP address, such as '127.0.0.1'")
        })?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(authority(ca)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        // Each connection is a new client's, so each makes a whole handshake.
        config.resumption = Resumption::disabled();
        Ok(Self {
            connector: Arc::new(config).into(),
            name,
            protocol,
        })
    }

    /// Makes the handshake.
    pub(crate) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let connecting = self.connector.connect(self.name.clone(), stream);
        let stream = connecting.await.map_err(|error| describe(&error))?;
        let chosen = stream.get_ref().1.alpn_protocol();
        match (self.protocol, chosen) {
            // A server that knows nothing of ALPN speaks HTTP/1.1.
            (Protocol::Http1, None) => Ok(stream),
            (protocol, Some(chosen)) if chosen == protocol.alpn() => Ok(stream),
            (protocol, _) => Err(format!(
                "TLS: the server didn't choose '{}' by ALPN",
                String::from_utf8_lossy(protocol.alpn())
            )),
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, protocol) = (&self.name, self.protocol);
        write!(f, "TLS to {name:?} for {protocol:?}")
    }
}

fn authority(file: &Path) -> anyhow::Result<RootCertStore> {
    let name = file.display();
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file);
    for certificate in certificates.with_context(|| format!("could not read '{name}'"))? {
        let certificate = certificate.with_context(|| format!("'{name}'"))?;
        store
            .add(certificate)
            .with_context(|| format!("'{name}'"))?;
    }
    anyhow::ensure!(
        !store.is_empty(),
        "'{name}': expected a certificate in PEM, which begins with '-----BEGIN CERTIFICATE-----'"
    );
    Ok(store)
}

/// Describes why there is no TLS connection, as errors of a load are counted.
fn describe(error: &io::Error) -> String {
    use rustls::{AlertDescription, Error};

    let of_tls = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    match of_tls {
        Some(Error::InvalidMessage(_)) => "TLS: the server doesn't speak it".to_owned(),
        // Authorities of other runs have the same name.
        Some(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => "TLS: the certificate is of another authority".to_owned(),
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            "TLS: the server refused the protocol by ALPN".to_owned()
        }
        Some(other) => format!("TLS: {other}"),
        None => format!("TLS: the handshake was cut off: {error}"),
    }
}
