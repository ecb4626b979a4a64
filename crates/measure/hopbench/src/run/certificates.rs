//! The certificates of a run, by which its paths are asked over TLS.
//!
//! They are made once a run, written into the directory of each trial that needs them, and never
//! recorded. Nobody else trusts their authority, and its key is forgotten at once.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use jiff::{ToSpan as _, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ClientConfig;

use crate::{catalog::TlsFile, observe::tls};

/// An authority, and a certificate that it has signed.
#[derive(Debug)]
pub(crate) struct Certificates {
    ca: String,
    certificate: String,
    key: String,
    /// Accepts nothing but certificates of this authority.
    client: Arc<ClientConfig>,
}

/// Directory of the files, below that of a trial. No [[file]] of a path can have its name.
const DIRECTORY: &str = ".tls";

/// Hosts that the certificate is for.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Days before now from which certificates are valid, in case clocks differ.
const DAYS_BEFORE: i64 = 1;

/// Days from now until which they are valid: longer than any run.
const DAYS_AFTER: i64 = 30;

impl Certificates {
    /// Makes an authority and a certificate, with keys on the curve P-256, which all programs know.
    pub(crate) fn make() -> anyhow::Result<Self> {
        Self::try_to_make().context("could not make certificates")
    }

    fn try_to_make() -> anyhow::Result<Self> {
        let mut of_ca = params([], "hopbench's authority of one run")?;
        of_ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        of_ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key_of_ca = KeyPair::generate()?;
        let ca = of_ca.self_signed(&key_of_ca)?;
        let issuer = Issuer::new(of_ca, key_of_ca);
        let mut of_server = params(HOSTS, "hopbench's path")?;
        of_server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        of_server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        of_server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = of_server.signed_by(&key, &issuer)?;
        Ok(Self {
            client: Arc::new(tls::client(ca.der().clone())?),
            ca: ca.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Returns the settings of a client that accepts this certificate alone.
    pub(crate) fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    /// Returns where a file is in the directory of a trial. Writes it, unless it is there.
    pub(crate) fn file(&self, directory: &Path, file: TlsFile) -> anyhow::Result<PathBuf> {
        let directory = directory.join(DIRECTORY);
        let path = directory.join(format!("{}.pem", file.name()));
        let text = match file {
            TlsFile::Ca => self.ca.clone(),
            TlsFile::Certificate => self.certificate.clone(),
            TlsFile::Key => self.key.clone(),
            TlsFile::Pem => format!("{}{}", self.certificate, self.key),
        };
        let mode = if file.has_key() { 0o600 } else { 0o644 };
        let written = fs::create_dir_all(&directory).and_then(|()| write_new(&path, &text, mode));
        written.with_context(|| format!("could not write '{}'", path.display()))?;
        Ok(path)
    }
}

fn params<const N: usize>(hosts: [&str; N], name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, name);
    let [before, after] = [-DAYS_BEFORE, DAYS_AFTER].map(day);
    let (year, month, day) = before?;
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = after?;
    params.not_after = date_time_ymd(year, month, day);
    Ok(params)
}

/// Returns the day in UTC that is so many days from today: year, month and day.
fn day(days: i64) -> anyhow::Result<(i32, u8, u8)> {
    let now = jiff::Timestamp::now().to_zoned(TimeZone::UTC);
    let day = now.checked_add(days.days())?.date();
    Ok((
        day.year().into(),
        day.month().try_into()?,
        day.day().try_into()?,
    ))
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(path);
    match opened {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_alone() {
        let certificates = Certificates::make().expect("made");
        let directory = TempDir::new().expect("a directory");
        for file in TlsFile::ALL {
            let path = certificates.file(directory.path(), file).expect("written");
            let again = certificates.file(directory.path(), file).expect("there");
            assert_eq!(path, again);
            let text = fs::read_to_string(&path).expect("readable");
            let has = |what: &str| text.contains(&format!("-----BEGIN {what}-----"));
            assert_eq!(has("CERTIFICATE"), file != TlsFile::Key, "{file:?}");
            assert_eq!(has("PRIVATE KEY"), file.has_key(), "{file:?}");
            let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, if file.has_key() { 0o600 } else { 0o644 }, "{file:?}");
        }
    }
}
