//! Addresses in a path file: where clients connect, and where counters are served.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    similar::most_similar,
    template::{Fill, Place, Template},
};

/// Checks an address as far as it is known before a trial: that it can be one, and that something
/// in `texts`, which processes read, has its ports and sockets.
pub(super) fn check(address: &Template, texts: &[&Template]) -> Result<(), String> {
    check_form(address)?;
    let unused = address.places().find(|place| !is_used(place, texts));
    let Some(unused) = unused else {
        return Ok(());
    };
    let known: Vec<&Place> = texts.iter().flat_map(|text| text.places()).collect();
    let names = known.iter().filter_map(|place| name_of_kind(place, unused));
    let nearest = name_of_kind(unused, unused).and_then(|name| most_similar(name, names));
    let nearest = known
        .iter()
        .find(|place| nearest.is_some() && name_of_kind(place, unused) == nearest);
    let hint = match nearest {
        Some(nearest) => format!(" (did you mean '{nearest}'?)"),
        None => "; write it in a 'command' or in a [[file]]".to_owned(),
    };
    Err(format!("no process uses '{unused}'{hint}"))
}

fn check_form(address: &Template) -> Result<(), String> {
    let filled = address.fill(&mut Sample);
    let filled = filled.map_err(|error| error.to_string())?;
    let is_address = match filled.strip_prefix("unix:") {
        Some(path) => !path.is_empty(),
        None => filled.parse::<SocketAddr>().is_ok(),
    };
    if is_address {
        return Ok(());
    }
    let hint = match address.first_place() {
        Some(Place::Dir | Place::File(_) | Place::Socket(_)) => {
            format!("; did you mean 'unix:{address}'?")
        }
        Some(Place::Port(_)) => format!("; did you mean '127.0.0.1:{address}'?"),
        _ if filled.contains(':') => "; HOST is an IP address, such as 127.0.0.1".to_owned(),
        _ => String::new(),
    };
    Err(format!(
        "'{address}': expected 'HOST:PORT' or 'unix:PATH'{hint}"
    ))
}

fn is_used(place: &Place, texts: &[&Template]) -> bool {
    let mut places = texts.iter().flat_map(|text| text.places());
    match place {
        // Its number is chosen by hopbench, so nobody can know it otherwise.
        Place::Port(_) => places.any(|other| other == place),
        // It can also be named by its file, below the directory in which processes start.
        Place::Socket(name) => {
            places.any(|other| other == place || *other == Place::Dir)
                || texts.iter().any(|text| has_word(&text.to_string(), name))
        }
        _ => true,
    }
}

/// Returns whether a text has the name of a file, apart from other names.
fn has_word(text: &str, name: &str) -> bool {
    let is_between = |letter: char| !(letter.is_alphanumeric() || "-_.".contains(letter));
    text.split(is_between).any(|word| word == name)
}

/// Returns the name of a place, if it is of the same kind as another.
fn name_of_kind<'a>(place: &'a Place, kind: &Place) -> Option<&'a str> {
    match (place, kind) {
        (Place::Port(name), Place::Port(_)) | (Place::Socket(name), Place::Socket(_)) => Some(name),
        _ => None,
    }
}

/// Fills in what a trial might, to see whether the result can be an address.
struct Sample;

impl Fill for Sample {
    fn bin(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(Path::new("/bin").join(name))
    }

    fn directory(&mut self) -> &Path {
        Path::new("/trial")
    }

    fn port(&mut self, _name: &str) -> anyhow::Result<u16> {
        Ok(1)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(Path::new("/bin").join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::try_from(text.to_owned()).expect(text)
    }

    #[test]
    fn addresses_are_checked_before_any_trial() {
        let texts = [
            "--listen=127.0.0.1:{{port:front}}",
            "--admin=unix:{{socket:admin}}",
        ];
        let texts = texts.map(template);
        let texts = texts.each_ref();
        for fine in [
            "127.0.0.1:{{port:front}}",
            "[::1]:{{port:front}}",
            "unix:{{socket:admin}}",
            "unix:/run/other",
            "127.0.0.1:80",
        ] {
            assert_eq!(check(&template(fine), &texts), Ok(()), "{fine}");
        }
        for (wrong, expected) in [
            ("foo", "'foo': expected 'HOST:PORT' or 'unix:PATH'"),
            ("unix:", "expected 'HOST:PORT' or 'unix:PATH'"),
            ("{{port:front}}", "did you mean '127.0.0.1:{{port:front}}'?"),
            ("{{socket:admin}}", "did you mean 'unix:{{socket:admin}}'?"),
            ("localhost:{{port:front}}", "HOST is an IP address"),
            (
                "127.0.0.1:{{port:frnt}}",
                "no process uses '{{port:frnt}}' (did you mean '{{port:front}}'?)",
            ),
            (
                "unix:{{socket:admn}}",
                "no process uses '{{socket:admn}}' (did you mean '{{socket:admin}}'?)",
            ),
            (
                "127.0.0.1:{{port:x}}",
                "'{{port:x}}'; write it in a 'command'",
            ),
        ] {
            let message = check(&template(wrong), &texts).expect_err(wrong);
            assert!(message.contains(expected), "{wrong}: {message}");
        }
    }

    #[test]
    fn a_socket_may_be_named_by_its_file() {
        for text in ["--admin={{dir}}/s", "--admin=unix:./far"] {
            let text = template(text);
            assert_eq!(check(&template("unix:{{socket:far}}"), &[&text]), Ok(()));
        }
    }
}
