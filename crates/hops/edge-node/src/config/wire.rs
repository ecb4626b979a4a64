//! A configuration as it is written.

use serde::Deserialize;

use crate::{
    cache_key::QueryRule,
    waf::{Exclusion, Limits, Mode},
};

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireConfig {
    pub(super) upstream: Vec<WireUpstream>,
    pub(super) route: Vec<WireRoute>,
    pub(super) limit: Vec<WireLimit>,
    pub(super) tokens: Option<WireTokens>,
    pub(super) waf: Option<WireWaf>,
    pub(super) cache: Option<WireCache>,
    pub(super) cluster: Option<WireCluster>,
    pub(super) generation_header: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireUpstream {
    pub(super) name: String,
    pub(super) targets: Vec<String>,
    #[serde(default = "timeout_seconds")]
    pub(super) timeout_seconds: u64,
    #[serde(default = "retries_max")]
    pub(super) retries_max: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireRoute {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) path: String,
    pub(super) host: Option<String>,
    #[serde(default)]
    pub(super) methods: Vec<String>,
    #[serde(default)]
    pub(super) priority: i32,
    /// The only upstream, if it is absent.
    pub(super) upstream: Option<String>,
    #[serde(default)]
    pub(super) limits: Vec<String>,
    #[serde(default = "yes")]
    pub(super) tokens: bool,
    #[serde(default = "yes")]
    pub(super) waf: bool,
    #[serde(default = "yes")]
    pub(super) cache: bool,
}

/// How a route's path is read.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Exact,
    Prefix,
    Wildcard,
    Regex,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireLimit {
    pub(super) name: String,
    pub(super) requests: u32,
    #[serde(default = "second")]
    pub(super) window_ms: u32,
    #[serde(default)]
    pub(super) scope: WireScope,
}

/// Whose requests a limit counts together.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WireScope {
    #[default]
    Client,
    All,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireTokens {
    /// Directory of the files, beside the configuration.
    pub(super) directory: String,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireWaf {
    pub(super) mode: Mode,
    pub(super) paranoia: u8,
    pub(super) threshold: u32,
    pub(super) exclude: Vec<Exclusion>,
    pub(super) limits: Limits,
    /// Files of rules, beside the configuration's own directory.
    pub(super) rules: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireCache {
    pub(super) mib: u64,
    pub(super) answer_kib_max: usize,
    pub(super) query: WireQuery,
    pub(super) query_ignore: Vec<String>,
    pub(super) headers: Vec<String>,
}

/// How a query counts in the key of an answer.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum WireQuery {
    #[default]
    AsWritten,
    Sorted,
    Ignored,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireCluster {
    pub(super) listen: String,
    #[serde(default)]
    pub(super) peers: Vec<String>,
    pub(super) secret: String,
    #[serde(default = "interval_ms")]
    pub(super) interval_ms: u64,
}

impl Default for WireWaf {
    fn default() -> Self {
        let settings = crate::waf::Settings::default();
        Self {
            mode: settings.mode,
            paranoia: settings.paranoia,
            threshold: settings.threshold,
            exclude: Vec::new(),
            limits: settings.limits,
            rules: Vec::new(),
        }
    }
}

impl Default for WireCache {
    fn default() -> Self {
        Self {
            mib: 64,
            answer_kib_max: 1024,
            query: WireQuery::default(),
            query_ignore: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl From<WireQuery> for QueryRule {
    fn from(query: WireQuery) -> Self {
        match query {
            WireQuery::AsWritten => Self::AsWritten,
            WireQuery::Sorted => Self::Sorted,
            WireQuery::Ignored => Self::Ignored,
        }
    }
}

fn timeout_seconds() -> u64 {
    60
}

fn retries_max() -> u32 {
    2
}

fn second() -> u32 {
    1_000
}

fn interval_ms() -> u64 {
    200
}

fn yes() -> bool {
    true
}
