//! Options that choose what to measure, and how long.

use std::{convert::Infallible, path::Path, str::FromStr, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use hopbench_analysis::{estimate::BLOCKS_MAX, record::Placement};

use crate::{
    catalog::{CONCURRENCY_MAX, DURATION_MS_MAX, RATE_RPS_MAX, Target, parse_duration},
    cmd::number::within,
    plan::{
        goal::Goal,
        selection::Overrides,
        variants::{self, Setting, Sweep, split_list},
    },
};

/// When a run has enough blocks.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Until {
    /// Add blocks until every RPS ratio's interval has a half-width of at most this, such as '3%'
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) until: Option<f64>,
    /// Add no block that would end later than this after the start, such as '90s' or '2h'
    #[arg(long, value_name = "TIME", default_value = "1h", requires = "until",
        value_parser = parse_duration)]
    pub(crate) max_time: Duration,
    /// Repeat blocks that others disturbed, with at most this share of the planned trials
    #[arg(long, value_name = "PERCENT", default_value = "50%", value_parser = share)]
    pub(crate) repeat_disturbed: u8,
}

impl Until {
    pub(crate) fn goal(&self) -> Option<Goal> {
        Some(Goal {
            half_width_percent: self.until?,
            time_max: self.max_time,
        })
    }
}

fn placements() -> impl TypedValueParser<Value = Placement> {
    let names = PossibleValuesParser::new(Placement::ALL.map(Placement::name));
    names.map(|name| {
        let mut all = Placement::ALL.into_iter();
        // clap refuses other names.
        all.find(|it| it.name() == name).unwrap_or_default()
    })
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text
        .strip_suffix('%')
        .unwrap_or(text)
        .trim_end()
        .parse::<f64>();
    match number {
        Ok(percent) if (0.1..=100.0).contains(&percent) => Ok(percent),
        _ => Err("expected a percentage from 0.1% to 100%, such as '3%'".to_owned()),
    }
}

fn share(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).trim_end().parse() {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err("expected a whole percentage from 0% (never) to 100%, such as '50%'".to_owned()),
    }
}

/// Scenarios, and the changes to make to them.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Names or files of scenarios
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Measure these paths instead: names, 'tag:NAME', TOML files, or '*' for all.
    /// The reference is always measured, too. In lists with commas, '\,' is a comma in a name
    #[arg(
        long = "path",
        visible_alias = "paths",
        value_name = "PATH",
        value_parser = path_list
    )]
    paths: Vec<List<String>>,
    /// Request these endpoints instead; '/echo:2' sends a request body of 2 bytes
    #[arg(
        long = "endpoint",
        visible_alias = "endpoints",
        value_name = "TARGET",
        value_parser = List::<Target>::from_str
    )]
    endpoints: Vec<List<Target>>,
    /// Use these numbers of connections instead
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        allow_negative_numbers = true,
        value_parser = within::<u32>(1, CONCURRENCY_MAX)
    )]
    concurrency: Vec<u32>,
    /// Request at these fixed rates instead, in requests per second
    #[arg(
        long = "rate",
        value_name = "RPS",
        value_delimiter = ',',
        allow_negative_numbers = true,
        value_parser = within::<u32>(1, RATE_RPS_MAX)
    )]
    rates: Vec<u32>,
    /// Confine client and path to cores in these ways instead
    #[arg(long, value_name = "PLACEMENT", value_delimiter = ',', value_parser = placements())]
    placement: Vec<Placement>,
    #[command(flatten)]
    length: Length,
    /// Measure each cell once and briefly: good for a first look, but not for comparing
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    parameters: Parameters,
}

/// How long and how often each cell is measured.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Length {
    /// Load each cell for this many milliseconds instead
    #[arg(long, value_name = "MS", allow_negative_numbers = true,
        value_parser = within::<u64>(1, DURATION_MS_MAX))]
    pub(crate) duration_ms: Option<u64>,
    /// Warm each path up for this many milliseconds instead
    #[arg(long, value_name = "MS", allow_negative_numbers = true,
        value_parser = within::<u64>(0, DURATION_MS_MAX))]
    pub(crate) warm_up_ms: Option<u64>,
    /// Measure each cell in this many blocks instead
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = within::<u32>(1, BLOCKS_MAX as u64))]
    pub(crate) blocks: Option<u32>,
}

/// Values for parameters of path files.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Parameters {
    /// Give the parameter NAME of path files this value
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<Setting>,
    /// Measure each path whose file has this parameter once for each value, as a path of its own
    #[arg(long, value_name = "NAME=VALUE,…")]
    sweep: Vec<Sweep>,
}

impl Parameters {
    pub(crate) fn values(&self) -> variants::Parameters {
        variants::Parameters {
            set: self.set.clone(),
            sweep: self.sweep.clone(),
        }
    }
}

impl Choice {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            paths: List::joined(&self.paths),
            endpoints: List::joined(&self.endpoints),
            concurrency: self.concurrency.clone(),
            rates: self.rates.clone(),
            placements: self.placement.clone(),
            duration_ms: self.length.duration_ms,
            warm_up_ms: self.length.warm_up_ms,
            blocks: self.length.blocks,
            quick: self.quick,
            parameters: self.parameters.values(),
        }
    }
}

/// Values with commas between them. `\,` is a comma in a value.
#[derive(Clone, Debug)]
struct List<T>(Vec<T>);

impl<T: Clone> List<T> {
    fn joined(lists: &[Self]) -> Vec<T> {
        lists.iter().flat_map(|list| list.0.clone()).collect()
    }
}

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let values = split_list(text);
        let values = values.iter().map(|value| value.parse());
        values.collect::<Result<_, _>>().map(Self)
    }
}

/// Parses a list of paths. A file that is there is one path, whatever its name.
fn path_list(text: &str) -> Result<List<String>, Infallible> {
    match Path::new(text).is_file() {
        true => Ok(List(vec![text.to_owned()])),
        false => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_have_commas_in_its_values() {
        let list = |text: &str| path_list(text).map(|list| list.0).unwrap_or_default();
        assert_eq!(list("a,b"), ["a", "b"]);
        assert_eq!(list(r"./a\,b.toml,c"), ["./a,b.toml", "c"]);
        assert_eq!(list(r"a\b,"), [r"a\b", ""]);
        let place = tempfile::TempDir::new().expect("a directory");
        let file = place.path().join("a,b.toml");
        std::fs::write(&file, "").expect("writable");
        let file = file.display().to_string();
        assert_eq!(list(&file), [file.as_str()]);
        let targets = List::<Target>::from_str(r"/echo?a=1\,2,/small").expect("targets");
        assert_eq!(targets.0.len(), 2);
    }
}
