//! A probe file: a question that no load of requests answers, and how to observe its answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use hopbench_analysis::probe::rule::Rule;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    path::{FileDefinition, check_names},
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
    pub(crate) networks: Vec<ProbeNetwork>,
    /// How many things there are: routes, files or connections.
    pub(crate) sizes: Vec<u32>,
    /// Sizes with `--quick`.
    pub(crate) quick_sizes: Vec<u32>,
    /// Rate of the requests meanwhile.
    pub(crate) rate_rps: u32,
}

/// The changing parts of a configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConfigParts<'a> {
    /// Number of routes, and of upstreams.
    pub(crate) routes: u32,
    /// Port of the upstream of all routes.
    pub(crate) origin: u16,
    pub(crate) generation: u32,
    pub(crate) connections: u32,
    /// Words that are chosen: the name of the place, and that of the word.
    pub(crate) words: &'a [(&'a str, &'a str)],
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
    /// Requests over slow networks.
    Network,
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

/// A network between clients and hops, made for the probe.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ProbeNetwork {
    /// Time that each packet takes, in milliseconds.
    pub(crate) delay_ms: u32,
    /// Share of the packets that are lost, in percent.
    #[serde(default)]
    pub(crate) loss_percent: f64,
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
    /// Text of the configuration, with the places of a path file. Besides, `{{origin}}` is the port
    /// of the upstream, `{{routes}}` all routes, `{{upstreams}}` all upstreams, `{{generation}}`
    /// the number of the change, `{{connections}}` how many there will be, and `{{word:NAME}}` a
    /// word.
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
    /// Server that the hops forward to; not for 'commands', 'starts' and 'changes'.
    origin: Option<ProbeHop>,
    /// Networks between clients and hops; only for 'network'.
    #[serde(default)]
    network: Vec<ProbeNetwork>,
    /// Numbers of routes, files or connections.
    #[serde(default)]
    sizes: Vec<u32>,
    /// These numbers with '--quick'.
    #[serde(default)]
    quick_sizes: Vec<u32>,
    /// Requests per second meanwhile.
    rate: Option<u32>,
}

/// Beginning of the place of a word.
const WORD: &str = "{{word:";

/// Rate of the requests, unless the file says so.
const RATE_RPS: u32 = 200;

/// Largest rate: it is kept by a few threads of hopbench itself.
const RATE_MAX: u32 = 20_000;

/// Longest delay of a network: that of a path over two satellites.
const DELAY_MS_MAX: u32 = 1_000;

/// Shares of packets that a network may lose. With more, TCP gives up.
const LOSSES_PERCENT: RangeInclusive<f64> = 0.0..=20.0;

/// Most cycles of a probe.
pub(crate) const CYCLES_MAX: u32 = 10_000;

/// Largest number of routes, files or connections.
const SIZE_MAX: u32 = 100_000;

impl ProbeDefinition {
    /// Parses the text of a probe file.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wire: Wire = from_text(text)?;
        wire.check()?;
        let rate_rps = wire.rate.unwrap_or(RATE_RPS);
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
            networks: wire.network,
            sizes: wire.sizes,
            quick_sizes: wire.quick_sizes,
            rate_rps,
        })
    }
}

impl Wire {
    fn check(&self) -> Result<(), String> {
        let is_cycles = |cycles| (1..=CYCLES_MAX).contains(&cycles);
        if !is_cycles(self.cycles) || !is_cycles(self.quick_cycles) {
            return Err(format!(
                "'cycles' and 'quick-cycles': expected 1 to {CYCLES_MAX}"
            ));
        }
        let mut sizes = self.sizes.iter().chain(&self.quick_sizes);
        if !sizes.all(|size| (1..=SIZE_MAX).contains(size)) {
            return Err(format!(
                "'sizes' and 'quick-sizes': expected 1 to {SIZE_MAX}"
            ));
        }
        if !(1..=RATE_MAX).contains(&self.rate.unwrap_or(RATE_RPS)) {
            return Err(format!(
                "'rate': expected 1 to {RATE_MAX} requests per second"
            ));
        }
        self.network.iter().try_for_each(ProbeNetwork::check)?;
        let networks: Vec<String> = self.network.iter().map(ProbeNetwork::name).collect();
        distinct(networks.iter().map(String::as_str))?;
        self.check_kind()?;
        check_names(&self.file)?;
        if let Some(rule) = self.rule.iter().find(|rule| !rule.max.is_finite()) {
            return Err(format!(
                "'rule.max' of '{}': expected a number",
                rule.measure
            ));
        }
        let hops = self.hop.iter().map(|hop| hop.name.as_str());
        distinct(hops)?;
        distinct(self.command.iter().map(|it| it.name.as_str()))?;
        let mut commands = self.command.iter().map(|it| it.name.as_str());
        if let Some(name) = commands.find(|it| it.is_empty() || it.contains(char::is_control)) {
            let name = name.escape_debug();
            return Err(format!(
                "'command.name': expected printable text, found '{name}'"
            ));
        }
        if self.command.iter().any(|it| it.command.is_empty()) {
            return Err("'command.command': expected a program".to_owned());
        }
        self.hop
            .iter()
            .chain(&self.origin)
            .try_for_each(ProbeHop::check)
    }
}

impl Wire {
    /// Checks that what the kind needs is there, and what it doesn't know is not.
    fn check_kind(&self) -> Result<(), String> {
        use ProbeKind::{Changes, Commands, Connections, Logs, Network, Secrets, Starts};
        let has_sizes = !self.sizes.is_empty() && !self.quick_sizes.is_empty();
        let no_sizes = self.sizes.is_empty() && self.quick_sizes.is_empty();
        let of_hops: &[ProbeKind] = &[Changes, Connections, Logs, Network, Secrets];
        let parts: [(&str, bool, bool, &[ProbeKind]); 8] = [
            (
                "[[command]]",
                !self.command.is_empty(),
                self.command.is_empty(),
                &[Commands],
            ),
            (
                "paths",
                !self.paths.is_empty(),
                self.paths.is_empty(),
                &[Starts],
            ),
            (
                "[[hop]]",
                !self.hop.is_empty(),
                self.hop.is_empty(),
                of_hops,
            ),
            (
                "[origin]",
                self.origin.is_some(),
                self.origin.is_none(),
                &[Connections, Logs, Network, Secrets],
            ),
            (
                "[[network]]",
                !self.network.is_empty(),
                self.network.is_empty(),
                &[Network],
            ),
            (
                "sizes' and 'quick-sizes",
                has_sizes,
                no_sizes,
                &[Changes, Connections, Secrets],
            ),
            ("rate", true, self.rate.is_none(), &[Changes, Secrets]),
            ("[[file]]", true, self.file.is_empty(), &[Commands]),
        ];
        for (name, is_there, is_absent, kinds) in parts {
            if kinds.contains(&self.kind) && !is_there {
                return Err(format!("'kind': a probe of this kind needs '{name}'"));
            }
            if !kinds.contains(&self.kind) && !is_absent {
                return Err(format!("'{name}': a probe of this kind has none"));
            }
        }
        let known = measures(self.kind);
        let mut rules = self.rule.iter().map(|rule| rule.measure.as_str());
        match rules.find(|it| *it != FAILURES && !known.contains(it)) {
            None => Ok(()),
            Some(measure) => Err(format!(
                "'rule.measure': a probe of this kind has no '{measure}'{}; it has {FAILURES}, {}",
                super::nearest(measure, known.iter().copied()),
                known.join(", ")
            )),
        }
    }
}

/// Measures of each kind of probe, besides the number of failures.
fn measures(kind: ProbeKind) -> &'static [&'static str] {
    match kind {
        ProbeKind::Changes => &[
            "first_new_us",
            "last_old_us",
            "requests",
            "dropped_requests",
            "failed_requests",
            "reverted_answers",
            "stale_routes",
            "unfinished_changes",
        ],
        ProbeKind::Commands => &["wall_us", "cpu_us"],
        ProbeKind::Connections => &[
            "answer_us",
            "connect_us",
            "memory_bytes",
            "descriptors_each",
            "dead_connections",
            "leaked_descriptors",
            "connection_us",
            "wrong_headers",
            "refusal_us",
            "unrefused",
            "hanging",
        ],
        ProbeKind::Logs => &[
            "answer_p99_us",
            "peak_rss_kib",
            "answers",
            "lines",
            "dropped_and_counted",
            "lost_silently",
            "unanswered",
            "first_line_us",
            "lag_us",
        ],
        ProbeKind::Network => &["first_answer_us", "answer_us", "large_us", "wrong_answers"],
        ProbeKind::Secrets => &[
            "first_new_us",
            "last_old_us",
            "requests",
            "failed_requests",
            "stale_secrets",
            "refused_secrets",
            "unfinished_changes",
        ],
        ProbeKind::Starts => &["listening_us", "first_answer_us", "recovered_us"],
    }
}

/// Measure of every probe: how often a subject could not be observed.
const FAILURES: &str = "failures";

/// Checks that no two have the same name.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut known = BTreeSet::new();
    for name in names {
        if !known.insert(name) {
            return Err(format!(
                "'name': there are two of the name '{name}'; rename one"
            ));
        }
    }
    Ok(())
}

impl ProbeNetwork {
    fn check(&self) -> Result<(), String> {
        if self.delay_ms > DELAY_MS_MAX {
            return Err(format!("'network.delay-ms': expected 0 to {DELAY_MS_MAX}"));
        }
        if !LOSSES_PERCENT.contains(&self.loss_percent) {
            let most = LOSSES_PERCENT.end();
            return Err(format!("'network.loss-percent': expected 0 to {most}"));
        }
        Ok(())
    }

    /// Returns its name in tables.
    pub(crate) fn name(&self) -> String {
        let lost = match self.loss_percent {
            0.0 => String::new(),
            percent => format!(", {percent} % lost"),
        };
        format!("{} ms{lost}", self.delay_ms)
    }
}

impl ProbeHop {
    fn check(&self) -> Result<(), String> {
        let at = |what: &str| format!("hop '{}': {what}", self.name);
        if !super::is_plain_name(&self.name) {
            return Err(at(
                "'name': expected letters, digits, spaces, '-', '_', '.' and '+'",
            ));
        }
        if self.command.is_empty() {
            return Err(at("'command': expected a program"));
        }
        if self.lost_lines.is_some() && self.admin.is_none() {
            return Err(at("'lost-lines' needs 'admin', where the counter is"));
        }
        let filled = self.configured(&ConfigParts {
            routes: 1,
            ..ConfigParts::default()
        });
        filled
            .map(drop)
            .map_err(|error| at(&format!("'config': {error}")))
    }

    /// Returns the text of a configuration; its other places are those of a path file.
    pub(crate) fn configured(&self, parts: &ConfigParts<'_>) -> Result<Template, String> {
        let repeat = |text: &str| -> String {
            let numbered = |number: u32| text.replace("{{number}}", &number.to_string());
            (1..=parts.routes).map(numbered).collect()
        };
        let mut text = self
            .config
            .replace("{{routes}}", &repeat(&self.route))
            .replace("{{upstreams}}", &repeat(&self.upstream))
            .replace("{{origin}}", &parts.origin.to_string())
            .replace("{{generation}}", &parts.generation.to_string())
            .replace("{{connections}}", &parts.connections.to_string());
        while let Some(at) = text.find(WORD) {
            let rest = &text[at + WORD.len()..];
            let (name, _) = rest.split_once("}}").ok_or("a '{{word:' has no end")?;
            let name = name.to_owned();
            let chosen = parts.words.iter().find(|(place, _)| *place == name);
            let word = chosen.and_then(|(_, word)| self.words.get(*word));
            let word = word.map_or("", String::as_str);
            if word.contains(WORD) {
                return Err(format!(
                    "the word for '{name}' has a place for a word in it"
                ));
            }
            text = text.replace(&format!("{WORD}{name}}}}}"), word);
        }
        Template::try_from(text)
    }
}

/// Returns the programs of a command that must be installed.
pub(crate) fn programs(command: &[Template]) -> impl Iterator<Item = &str> {
    let places = command.iter().flat_map(Template::places);
    places.filter_map(|place| match place {
        Place::Program(name) => Some(name.as_str()),
        _ => None,
    })
}
