//! Requests, preparations and stages, each in one line.

use std::fmt;

use hopbench_analysis::report::plural;

use super::{
    request::{Body, ExpectedAnswer, RequestDefinition},
    scenario::{Asks, ScenarioDefinition},
    stage::{Change, Prepare, Stage},
};

impl ScenarioDefinition {
    /// Describes requests, preparations and stages.
    pub(crate) fn loads(&self) -> Vec<String> {
        let requests = match &self.asks {
            Asks::Mix(requests) => requests.as_slice(),
            Asks::AllEndpoints | Asks::Endpoints(_) => &[],
        };
        let requests = requests.iter().map(|request| format!("request {request}"));
        let prepare = self
            .prepare
            .iter()
            .map(|prepare| format!("preparation {prepare}"));
        let stages = self.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| match &stage.name {
            Some(name) => format!("stage '{name}': {stage}"),
            None => format!("stage {}: {stage}", index + 1),
        });
        requests.chain(prepare).chain(stages).collect()
    }
}

impl fmt::Display for RequestDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}': ", self.name)?;
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        match self.targets.as_slice() {
            [first, .., last] => {
                let order = if self.once { "once each" } else { "in turn" };
                write!(f, "{first} … {last} ({} {order})", self.targets.len())?;
            }
            targets => f.write_str(&targets.join(""))?,
        }
        for (name, value) in &self.headers {
            write!(f, ", {name}: {value}")?;
        }
        match &self.body {
            None => {}
            Some(Body::Generated { length_bytes }) => write!(f, ", {length_bytes} bytes")?,
            Some(Body::Given(bytes)) => write!(f, ", {} bytes", bytes.len())?,
        }
        write!(f, ", weight {}", self.weight)?;
        match &self.expect {
            None => f.write_str(", correct answer: what the reference says"),
            Some(answer) => write!(f, ", correct answer: {answer}"),
        }
    }
}

impl fmt::Display for ExpectedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        if let Some(length_bytes) = self.length_bytes {
            write!(f, ", {length_bytes} bytes")?;
        }
        if let Some(sha256) = &self.sha256 {
            write!(f, ", SHA-256 {sha256}")?;
        }
        self.headers
            .iter()
            .try_for_each(|(name, value)| match value {
                None => write!(f, ", with '{name}'"),
                Some(value) => write!(f, ", with '{name}: {value}'"),
            })
    }
}

impl fmt::Display for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            requests,
            concurrency,
            ..
        } = self;
        write!(
            f,
            "'{name}': {requests} requests on {}",
            plural(*concurrency as usize, "connection")
        )?;
        if !self.of.is_empty() {
            write!(f, ", of '{}'", self.of.join("', '"))?;
        }
        match self.paths.is_empty() {
            true => Ok(()),
            false => write!(f, ", on '{}'", self.paths.join("', '")),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit() {
            "rate" => "requests per second",
            "percent-of-knee" => "% of the knee",
            _ => "connections",
        };
        let how = match self.change {
            Change::Ramp => "evenly to ",
            Change::Step => "",
        };
        write!(f, "{how}{} {unit}, {} ms", self.level(), self.duration_ms)
    }
}
