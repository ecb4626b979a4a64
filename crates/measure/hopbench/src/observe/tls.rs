//! TLS at the front of a path. The certificate is verified: only one of the run's authority is
//! accepted.

use std::{io, net::IpAddr, sync::Arc};

use anyhow::{anyhow, bail};
use hopbench_analysis::record::Protocol;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Returns the settings of a client that accepts certificates of one authority.
pub(crate) fn client(authority: CertificateDer<'static>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Makes the handshake. Offers one protocol by ALPN, and accepts no other.
pub(super) async fn connect(
    config: &ClientConfig,
    host: IpAddr,
    protocol: Protocol,
    stream: TcpStream,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut config = config.clone();
    let name = alpn(protocol);
    config.alpn_protocols = vec![name.as_bytes().to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect(ServerName::from(host), stream);
    let stream = connecting
        .await
        .map_err(|error| explained(error, protocol))?;
    let chosen = stream.get_ref().1.alpn_protocol();
    match (protocol, chosen) {
        // A server that knows nothing of ALPN speaks HTTP/1.1.
        (Protocol::Http1, None) => Ok(stream),
        (_, Some(chosen)) if chosen == name.as_bytes() => Ok(stream),
        (_, chosen) => bail!(
            "the front chose {} by ALPN, expected '{name}'{}",
            chosen.map_or_else(
                || "no protocol".to_owned(),
                |chosen| format!("'{}'", String::from_utf8_lossy(chosen).escape_debug())
            ),
            advice(protocol)
        ),
    }
}

/// Returns the name of a protocol in TLS (RFC 7301).
fn alpn(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::H2 => "h2",
    }
}

/// Says what to try if a hop doesn't take a protocol.
fn advice(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "; let the hop speak HTTP/1.1, or ask it by 'h2' (its 'protocol')",
        Protocol::H2 => "; let the hop speak HTTP/2, or ask it by 'http1' (its 'protocol')",
    }
}

/// Explains why there is no TLS connection.
fn explained(error: io::Error, protocol: Protocol) -> anyhow::Error {
    let of_tls = error.get_ref().and_then(|it| it.downcast_ref::<Error>());
    let Some(of_tls) = of_tls else {
        return anyhow!(
            "the connection ended in the TLS handshake: {error}; if the front doesn't speak TLS, \
             write it without 'https://'"
        );
    };
    match of_tls {
        Error::InvalidMessage(_) => anyhow!(
            "the front doesn't speak TLS: {of_tls}; have the hop use '{{{{tls:certificate}}}}' and \
             '{{{{tls:key}}}}', or write 'front' without 'https://'"
        ),
        // Authorities of other runs have the same name.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => anyhow!(
            "the certificate at the front is of another authority than the run's: have the hop use \
             '{{{{tls:certificate}}}}' and '{{{{tls:key}}}}'"
        ),
        Error::InvalidCertificate(_) => anyhow!(
            "the certificate at the front isn't accepted: {of_tls}; have the hop use \
             '{{{{tls:certificate}}}}' and '{{{{tls:key}}}}'"
        ),
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => anyhow!(
            "the front refused '{}' by ALPN{}",
            alpn(protocol),
            advice(protocol)
        ),
        other => anyhow!("no TLS connection: {other}"),
    }
}
