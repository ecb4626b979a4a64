//! A probe file: a question that no load of requests answers, and how to observe its answer.

use std::collections::BTreeMap;

use hopbench_analysis::probe::rule::Rule;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    path::FileDefinition,
    read::from_text,
    template::{Place, Template},
};

/// A validated probe.
#[derive(Clone, Debug)]
pub(crate) struct ProbeDefinition {
    pub(crate) name: String,
    pub(crate) question: String,
    pub(crate) analysis: String,
    /// How often everything is observed.
    pub(crate) cycles: u32,
    /// How often with `--quick`.
    pub(crate) quick_cycles: u32,
    pub(crate) rules: Vec<Rule>,
    pub(crate) kind: ProbeKind,
    pub(crate) commands: Vec<ProbeCommand>,
    /// Files that the commands read.
    pub(crate) files: Vec<FileDefinition>,
    /// Selectors of paths.
    pub(crate) paths: Vec<String>,
    pub(crate) hops: Vec<ProbeHop>,
    /// Server that the hops forward to.
    pub(crate) origin: Option<ProbeHop>,
    /// How many things there are: routes, files or connections.
    pub(crate) sizes: Vec<u32>,
    /// Sizes with `--quick`.
    pub(crate) quick_sizes: Vec<u32>,
    /// Rate of the requests meanwhile.
    pub(crate) rate_rps: u32,
}

/// The thing that is observed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProbeKind {
    /// Changes of a hop's routes while it serves.
    Changes,
    /// Commands from their start to their end.
    Commands,
    /// Long-lived connections beside active ones.
    Connections,
    /// A hop's log, written at full rate to readers of all kinds.
    Logs,
    /// Files of secrets that change while a hop serves.
    Secrets,
    /// Starts of paths.
    Starts,
}

/// A command that is run again and again.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ProbeCommand {
    /// Name in tables.
    pub(crate) name: String,
    /// Program and arguments. `{{dir}}` has a copy of a run in `run`.
    pub(crate) command: Vec<Template>,
}

/// A hop whose configuration the probe writes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ProbeHop {
    /// Name in tables.
    pub(crate) name: String,
    /// Program and arguments. Its configuration is `{{file:hop.conf}}`.
    pub(crate) command: Vec<Template>,
    /// Whether it stops when its stdin ends.
    #[serde(default)]
    pub(crate) stops_with_stdin: bool,
    /// Signal at which it reads its configuration again.
    #[serde(default)]
    pub(crate) reload: Reload,
    /// Address at which it serves its counters.
    pub(crate) admin: Option<Template>,
    /// Counter of lines that its log has lost.
    pub(crate) lost_lines: Option<String>,
    /// Text of the configuration. `{{port:front}}` is the port for clients, `{{origin}}` that of the
    /// upstream, `{{dir}}` its directory, `{{routes}}` stands for all routes, `{{upstreams}}` for all
    /// upstreams, `{{generation}}` for the number of the change, and `{{word:NAME}}` for a word.
    #[serde(default)]
    pub(crate) config: String,
    /// Text of each route, with `{{number}}`.
    #[serde(default)]
    pub(crate) route: String,
    /// Text of each upstream, with `{{number}}`.
    #[serde(default)]
    pub(crate) upstream: String,
    /// Words of the configuration that the probe chooses among, by name.
    #[serde(default)]
    pub(crate) words: BTreeMap<String, String>,
}

/// A signal at which a program reads its configuration again.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reload {
    /// SIGHUP.
    #[default]
    Hup,
    /// SIGUSR2.
    Usr2,
}

/// A probe file as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Wire {
    /// Question that the probe answers.
    question: String,
    /// How to read the answer.
    #[serde(default)]
    analysis: String,
    /// The thing that is observed.
    kind: ProbeKind,
    /// How often everything is observed.
    cycles: u32,
    /// How often with '--quick'.
    quick_cycles: u32,
    /// Limits for what is observed.
    #[serde(default)]
    rule: Vec<Rule>,
    /// Commands to run; only for 'commands'.
    #[serde(default)]
    command: Vec<ProbeCommand>,
    /// Files that the commands read, in '{{dir}}'.
    #[serde(default)]
    file: Vec<FileDefinition>,
    /// Paths to start; only for 'starts'.
    #[serde(default)]
    paths: Vec<String>,
    /// Hops to observe; not for 'commands' and 'starts'.
    #[serde(default)]
    hop: Vec<ProbeHop>,
    /// Server that the hops forward to; for 'logs', 'secrets' and 'connections'.
    origin: Option<ProbeHop>,
    /// Numbers of routes, files or connections.
    #[serde(default)]
    sizes: Vec<u32>,
    /// These numbers with '--quick'.
    #[serde(default)]
    quick_sizes: Vec<u32>,
    /// Requests per second meanwhile.
    rate: Option<u32>,
}

/// Most cycles of a probe.
pub(crate) const CYCLES_MAX: u32 = 10_000;

/// Largest number of routes, files or connections.
const SIZE_MAX: u32 = 100_000;

impl ProbeDefinition {
    /// Parses the text of a probe file.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wire: Wire = from_text(text)?;
        let is_cycles = |cycles| (1..=CYCLES_MAX).contains(&cycles);
        if !is_cycles(wire.cycles) || !is_cycles(wire.quick_cycles) {
            return Err(format!(
                "'cycles' and 'quick-cycles': expected 1 to {CYCLES_MAX}"
            ));
        }
        let mut sizes = wire.sizes.iter().chain(&wire.quick_sizes);
        if sizes.any(|size| *size > SIZE_MAX) {
            return Err(format!("'sizes': expected at most {SIZE_MAX}"));
        }
        let lacks_hops =
            wire.hop.is_empty() || wire.sizes.is_empty() || wire.quick_sizes.is_empty();
        let (missing, expected) = match wire.kind {
            ProbeKind::Commands => (wire.command.is_empty(), "'[[command]]'"),
            ProbeKind::Starts => (wire.paths.is_empty(), "'paths'"),
            ProbeKind::Logs => (
                wire.hop.is_empty() || wire.origin.is_none(),
                "'[[hop]]' and '[origin]'",
            ),
            ProbeKind::Changes => (lacks_hops, "'[[hop]]', 'sizes' and 'quick-sizes'"),
            ProbeKind::Connections | ProbeKind::Secrets => (
                lacks_hops || wire.origin.is_none(),
                "'[[hop]]', '[origin]', 'sizes' and 'quick-sizes'",
            ),
        };
        if missing {
            return Err(format!("'kind': a probe of this kind needs {expected}"));
        }
        let rate_rps = wire.rate.unwrap_or(200);
        if !(1..=100_000).contains(&rate_rps) {
            return Err("'rate': expected 1 to 100000 requests per second".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            question: wire.question,
            analysis: wire.analysis,
            cycles: wire.cycles,
            quick_cycles: wire.quick_cycles,
            rules: wire.rule,
            kind: wire.kind,
            commands: wire.command,
            files: wire.file,
            paths: wire.paths,
            hops: wire.hop,
            origin: wire.origin,
            sizes: wire.sizes,
            quick_sizes: wire.quick_sizes,
            rate_rps,
        })
    }
}

impl ProbeHop {
    /// Returns the programs that must be installed.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &str> {
        let places = self.command.iter().flat_map(Template::places);
        places.filter_map(|place| match place {
            Place::Program(name) => Some(name.as_str()),
            _ => None,
        })
    }
}
