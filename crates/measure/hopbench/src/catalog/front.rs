//! The front of a path: where clients connect, and how they ask.

use std::fmt;

use hopbench_analysis::record::{FrontProtocol, Protocol};

use super::{
    similar::nearest,
    template::{Fill, Place, Template},
};

/// The front of a path, as its file has it.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    written: Template,
    /// Address without 'https://'.
    pub(super) address: Template,
    pub(crate) protocol: FrontProtocol,
}

/// Beginnings of an address, and whether they mean TLS.
const SCHEMES: [(&str, bool); 2] = [("http://", false), ("https://", true)];

impl Front {
    /// Takes apart what stands in the file.
    pub(super) fn read(written: Template, protocol: Option<&Template>) -> Result<Self, String> {
        let found = SCHEMES.into_iter().find_map(|(scheme, tls)| {
            let address = written.without_beginning(scheme)?;
            Some((address, tls))
        });
        let (address, tls) = match found {
            Some(found) => found,
            None if written.begins_with_scheme() => {
                return Err(format!(
                    "'front': '{written}': expected 'HOST:PORT', 'http://HOST:PORT' or \
                     'https://HOST:PORT'"
                ));
            }
            None => (written.clone(), false),
        };
        let protocol = protocol.map_or_else(|| Ok(Protocol::default()), read_protocol)?;
        Ok(Self {
            written,
            address,
            protocol: FrontProtocol { tls, protocol },
        })
    }

    /// Checks what an address can't be with TLS, and that a process gets the certificate that
    /// clients accept.
    pub(super) fn check_tls<'p>(
        &self,
        mut places: impl Iterator<Item = &'p Place>,
    ) -> Result<(), String> {
        if !self.protocol.tls {
            return Ok(());
        }
        if self.address.begins_with("unix:") {
            return Err(format!(
                "'front': '{self}': expected 'https://HOST:PORT', since a certificate is for a host"
            ));
        }
        let is_certificate =
            |place: &Place| matches!(place, Place::Tls(file) if file.has_certificate());
        match places.any(is_certificate) {
            true => Ok(()),
            false => Err(format!(
                "'front': '{self}': expected a process that gets the certificate which clients \
                 accept; write '{{{{tls:certificate}}}}' and '{{{{tls:key}}}}', or \
                 '{{{{tls:pem}}}}' for both in one file, in its 'command', in 'env' or in a \
                 [[file]]"
            )),
        }
    }

    /// Returns the address with all places filled in.
    pub(crate) fn fill(&self, fill: &mut dyn Fill) -> anyhow::Result<String> {
        self.address.fill(fill)
    }
}

fn read_protocol(text: &Template) -> Result<Protocol, String> {
    let text = text.to_string();
    let found = Protocol::ALL.into_iter().find(|it| it.name() == text);
    found.ok_or_else(|| {
        let hint = match text.as_str() {
            "http2" | "http/2" | "h2c" => " (did you mean 'h2'?)".to_owned(),
            "http" | "http/1.1" | "h1" => " (did you mean 'http1'?)".to_owned(),
            other => nearest(other, Protocol::ALL.map(Protocol::name)),
        };
        format!("'protocol': expected 'http1' or 'h2': '{text}'{hint}")
    })
}

/// Writes it as it stands in the file.
impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::TlsFile;

    fn read(front: &str, protocol: Option<&str>) -> Result<Front, String> {
        let template = |text: &str| Template::try_from(text.to_owned()).expect(text);
        Front::read(template(front), protocol.map(template).as_ref())
    }

    #[test]
    fn a_front_says_how_it_is_asked() {
        for (written, protocol, address, expected) in [
            ("1.2.3.4:{{port:a}}", None, "1.2.3.4:{{port:a}}", "HTTP/1.1"),
            ("http://[::1]:1", Some("http1"), "[::1]:1", "HTTP/1.1"),
            ("http://{{port:a}}", None, "{{port:a}}", "HTTP/1.1"),
            (
                "https://1.2.3.4:{{port:a}}",
                None,
                "1.2.3.4:{{port:a}}",
                "HTTP/1.1 over TLS",
            ),
            ("https://a:1", Some("h2"), "a:1", "HTTP/2 over TLS"),
            ("a:1", Some("h2"), "a:1", "HTTP/2 without TLS"),
        ] {
            let front = read(written, protocol).expect(written);
            assert_eq!(front.to_string(), written);
            assert_eq!(front.address.to_string(), address);
            assert_eq!(front.protocol.to_string(), expected, "{written}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (written, protocol, expected) in [
            ("ftp://a:1", None, "'ftp://a:1': expected 'HOST:PORT'"),
            ("HTTPS://a:1", None, "'https://HOST:PORT'"),
            ("a:1", Some("http2"), "'http2' (did you mean 'h2'?)"),
            ("a:1", Some("http3"), "'http3' (did you mean 'http1'?)"),
            ("a:1", Some(""), "expected 'http1' or 'h2': ''"),
        ] {
            let message = read(written, protocol).expect_err(written);
            assert!(message.contains(expected), "{written}: {message}");
        }
    }

    #[test]
    fn a_front_with_tls_needs_a_process_with_its_certificate() {
        let plain = read("a:1", None).expect("valid");
        assert_eq!(plain.check_tls([].iter()), Ok(()));
        let front = read("https://a:1", None).expect("valid");
        for (file, is_enough) in [
            (TlsFile::Ca, false),
            (TlsFile::Key, false),
            (TlsFile::Certificate, true),
            (TlsFile::Pem, true),
        ] {
            let checked = front.check_tls([Place::Tls(file)].iter());
            assert_eq!(checked.is_ok(), is_enough, "{file:?}: {checked:?}");
        }
        let socket = read("https://unix:a", None).expect("valid");
        let message = socket.check_tls([].iter()).expect_err("no host");
        assert!(message.contains("a certificate is for a host"), "{message}");
    }
}
