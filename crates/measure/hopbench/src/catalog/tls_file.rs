//! The files by which the processes of a path speak TLS.

/// A file in PEM that hopbench writes for a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TlsFile {
    /// Certificate of the authority that clients trust.
    Ca,
    /// Certificate that this authority has signed, for processes that serve clients.
    Certificate,
    /// Key of that certificate.
    Key,
    /// Certificate and key in one file.
    Pem,
}

impl TlsFile {
    /// All files.
    pub(crate) const ALL: [Self; 4] = [Self::Ca, Self::Certificate, Self::Key, Self::Pem];

    /// Returns its name in a place.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Pem => "pem",
        }
    }

    /// Returns whether it has the certificate that clients accept.
    pub(crate) fn has_certificate(self) -> bool {
        matches!(self, Self::Certificate | Self::Pem)
    }

    /// Returns whether it has the key, which only its owner may read.
    pub(crate) fn has_key(self) -> bool {
        matches!(self, Self::Key | Self::Pem)
    }
}
