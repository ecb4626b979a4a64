//! Values for the places of a path in one trial.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use anyhow::{Context, bail};

use crate::{
    catalog::{FileDefinition, Fill, ProcessDefinition, Template, TlsFile},
    plan::toolbox::Toolbox,
    process::{Command, StatedUmask},
    run::certificates::Certificates,
};

/// Fills in places for one trial. A name stands for the same port throughout.
#[derive(Debug)]
pub(crate) struct TrialFill<'a> {
    toolbox: &'a Toolbox,
    directory: PathBuf,
    ports: BTreeMap<String, u16>,
    certificates: Option<&'a Certificates>,
}

impl<'a> TrialFill<'a> {
    pub(crate) fn new(toolbox: &'a Toolbox, directory: &Path) -> Self {
        Self {
            toolbox,
            directory: directory.to_owned(),
            ports: BTreeMap::new(),
            certificates: None,
        }
    }

    /// Returns the same with what '{{tls:…}}' stands for.
    pub(super) fn with_certificates(self, certificates: Option<&'a Certificates>) -> Self {
        Self {
            certificates,
            ..self
        }
    }

    /// Writes files whose places are filled in.
    pub(crate) fn write(&mut self, files: &[FileDefinition]) -> anyhow::Result<()> {
        let _umask = StatedUmask::set();
        for file in files {
            let content = file.content.fill(self)?;
            fs::write(self.directory.join(&file.name), content)?;
        }
        Ok(())
    }

    /// Returns a command whose places are filled in. It runs in the trial's directory.
    pub(crate) fn command(
        &mut self,
        words: &[Template],
        stops_with_stdin: bool,
    ) -> anyhow::Result<Command> {
        let words = words.iter().map(|word| word.fill(self));
        let mut words = words.collect::<anyhow::Result<Vec<String>>>()?.into_iter();
        Ok(Command {
            program: words.next().unwrap_or_default().into(),
            arguments: words.collect(),
            directory: Some(self.directory.clone()),
            stops_with_stdin,
            ..Command::default()
        })
    }

    /// Returns the command of a path's process, in its surroundings.
    pub(super) fn process(&mut self, process: &ProcessDefinition) -> anyhow::Result<Command> {
        let command = self.command(&process.command, process.stops_with_stdin)?;
        let cwd = process.cwd.as_ref();
        let cwd = cwd.map(|cwd| cwd.fill(self)).transpose()?;
        let mut environment = Vec::new();
        for (name, value) in &process.env {
            environment.push((name.into(), value.fill(self)?.into()));
        }
        Ok(Command {
            works_in: cwd.map(PathBuf::from),
            environment,
            ..command
        })
    }
}

impl Fill for TrialFill<'_> {
    fn bin(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        self.toolbox.bin(name)
    }

    fn directory(&mut self) -> &Path {
        &self.directory
    }

    fn port(&mut self, name: &str) -> anyhow::Result<u16> {
        if let Some(port) = self.ports.get(name) {
            return Ok(*port);
        }
        let port = free_port()?;
        self.ports.insert(name.to_owned(), port);
        Ok(port)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<PathBuf> {
        self.toolbox
            .program(name)
            .with_context(|| format!("'{name}' is not installed"))
    }

    fn tls(&mut self, file: TlsFile) -> anyhow::Result<PathBuf> {
        let certificates = self.certificates.with_context(|| {
            let name = file.name();
            format!("'{{{{tls:{name}}}}}': only the file of a path can have it, in a trial")
        })?;
        certificates.file(&self.directory, file)
    }
}

/// Ports below the range from which the kernel takes the ports of outgoing connections. In that
/// range, a client may take a free port before the server has bound it.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// Returns a port on which nobody listens. Each is returned once before any is returned again.
fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Several hopbench processes at a time begin at different ports.
    let own = u16::try_from(std::process::id() * 97 % u32::from(span)).expect("a remainder fits");
    for _ in 0..span {
        let offset = NEXT.fetch_add(1, Relaxed).wrapping_add(own) % span;
        let port = PORTS.start + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!(
        "no free TCP port from {} to {} on 127.0.0.1",
        PORTS.start,
        PORTS.end
    )
}
